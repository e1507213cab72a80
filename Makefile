# make demo    set-up, then the main job: simulate, train, classify a film of known truth, report
# make test    set-up, then every test
# make setup   what both share; done once, it costs a second
# make kill-test  jobs killed at random moments, as often as it takes to believe it
# make bench   ratios of two things timed in one run

VENV ?= .venv
export VENV
BIN := $(VENV)/bin

.PHONY: setup demo test lint kill-test bench
setup:
	@hpc/setup.sh

demo: setup
	$(BIN)/hamscope run configs/laptop.toml --out demo

lint: setup
	$(BIN)/ruff check .

test: setup lint
	tests/run.sh

kill-test: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" HAMSCOPE_KILLS=20 HAMSCOPE_WRITING_KILLS=25 $(BIN)/pytest -q tests/test_restart.py -k killed

bench: setup
	$(BIN)/python tests/bench/bench.py
