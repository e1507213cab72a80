# make demo    set-up, then the main job: simulate, train, classify a film of known truth, report
# make test    set-up, then every test
# make setup   what both share; done once, it costs a second
# make bench   ratios of two things timed in one run

VENV ?= .venv
export VENV
BIN := $(VENV)/bin

.PHONY: setup demo test lint bench
setup:
	@hpc/setup.sh

demo: setup
	$(BIN)/hamscope run configs/laptop.toml --out demo

lint: setup
	$(BIN)/ruff check .

test: setup lint
	tests/run.sh

bench: setup
	$(BIN)/python tests/bench/bench.py
