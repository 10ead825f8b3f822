# Thin: each target is one or two commands that also work without make (see README.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test files run in so many processes, of one thread each: with more threads than cores, they would
# wait for one another most of the time. Tests that start sandboxes, browsers and classes run alone.
PROCESSES ?= 2
ALONE := tests/browser tests/grading
TOGETHER := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ $(ALONE:%=--ignore=%) -n $(PROCESSES) --dist loadfile
PYTEST := $(BIN)/python -m pytest

.PHONY: install lab test test-full lint chapters book bench

install:
	@$(PYTHON) -m gclib.install course

lab: install
	@$(BIN)/gclib lab

test:
	@$(PYTHON) -m gclib.install test
	$(TOGETHER)
	$(PYTEST) $(ALONE)

# The quick tests, and then those that are left: none runs twice.
test-full: test
	@$(PYTHON) -m gclib.install full
	$(TOGETHER) --full -m full
	$(PYTEST) $(ALONE) --full -m full

lint:
	@$(PYTHON) -m gclib.install test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m gclib.grading.lint

chapters:
	@$(PYTHON) -m gclib.install course
	$(BIN)/python -m gclib.grading.generate

# As a site that works offline from a folder, with the outputs of all notebooks.
book:
	@$(PYTHON) -m gclib.install book
	@$(BIN)/python -m gclib.book

bench:
	@$(PYTHON) -m gclib.install full
	$(BIN)/gclib bench blocks --save docs
	$(BIN)/gclib bench networks --save docs
	$(BIN)/gclib bench networks --table 4 --save docs
	$(BIN)/gclib bench roofline --save docs
	$(BIN)/gclib bench course --save docs
	$(BIN)/gclib bench grading --save docs
