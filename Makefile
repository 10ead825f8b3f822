# Thin: each target is one or two commands that also work without make (see README.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files run in so many processes, of one thread each: with more threads than cores, they would
# wait for one another most of the time.
PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ -n $(PROCESSES) --dist loadfile

.PHONY: install lab test test-full lint chapters bench

install:
	@$(PYTHON) -m gclib.install course

lab: install
	@$(BIN)/gclib lab

test:
	@$(PYTHON) -m gclib.install test
	$(PYTEST)

test-full:
	@$(PYTHON) -m gclib.install full
	$(PYTEST) --full

lint:
	@$(PYTHON) -m gclib.install test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m gclib.grading.lint

chapters:
	@$(PYTHON) -m gclib.install course
	$(BIN)/python -m gclib.grading.generate

bench:
	@$(PYTHON) -m gclib.install full
	$(BIN)/gclib bench blocks --save docs
	$(BIN)/gclib bench networks --save docs
	$(BIN)/gclib bench course --save docs
	$(BIN)/gclib bench grading --save docs
