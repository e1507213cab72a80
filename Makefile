# make demo    set-up, a first verdict by the bundle that comes with hamscope, then the whole way: simulate, train,
#              classify films of known truth, report
# make test    set-up, then every test
# make setup   what both share; done once, it costs a second
# make kill-test  jobs killed at random moments, as often as it takes to believe it
# make test-container  the container's definition in a chroot: %files, %post, %test; root and debootstrap, ten minutes
# make docs    the documentation site, into build/site
# make bundle  the default bundle again: simulate, train, simulate, calibrate (two to three hours), into build/default
# make bench   ratios of two things timed in one run

VENV ?= .venv
export VENV
BIN := $(VENV)/bin

.PHONY: setup demo test lint kill-test test-container bench bundle docs
setup:
	@hpc/setup.sh

demo: setup
	@mkdir -p demo-first
	$(BIN)/hamscope film configs/laptop.toml --out demo-first/frames
	$(BIN)/hamscope classify demo-first/frames --stride 16 --threshold 128 --out demo-first/results.h5
	$(BIN)/hamscope report demo-first/results.h5 --out demo-first/report
	$(BIN)/hamscope run configs/laptop.toml --out demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

test: setup lint
	tests/run.sh

kill-test: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" HAMSCOPE_KILLS=20 HAMSCOPE_WRITING_KILLS=25 $(BIN)/pytest -q tests/test_restart.py -k killed

test-container:
	tests/container/chroot.sh

docs: setup
	$(BIN)/mkdocs build --strict --site-dir build/site

SIMULATE := OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" \
  mpiexec -n 2 --oversubscribe hamscope simulate
bundle: setup
	@mkdir -p build
	$(SIMULATE) configs/default.toml --out build/slices.h5
	$(BIN)/hamscope train configs/default.toml build/slices.h5 --out build/trained
	$(SIMULATE) configs/calibration.toml --out build/calibration.h5
	$(BIN)/hamscope calibrate build/trained build/calibration.h5 --out build/default

bench: setup
	$(BIN)/python tests/bench/bench.py
