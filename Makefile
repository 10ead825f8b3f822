# Thin: each target is one or two commands that also work without make (see README.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install lab test test-full lint chapters bench

install:
	@$(PYTHON) -m gclib.install course

lab: install
	@$(BIN)/gclib lab

test:
	@$(PYTHON) -m gclib.install test
	$(BIN)/python -m pytest tests/

test-full:
	@$(PYTHON) -m gclib.install full
	$(BIN)/python -m pytest tests/ --full

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
