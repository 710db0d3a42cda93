# One command for each daily act. Every line works alone; `make demo` and `make test` need only Python 3.11.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: env demo test test-faults test-all check docs format clean

env: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e .
	touch .venv/installed

.venv/tested: .venv/installed
	$(BIN)/python -m pip install -q -e '.[test]'
	touch .venv/tested

demo: .venv/installed
	$(BIN)/python search.py --target-flops 0.4

test: .venv/tested
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow and not faults'

test-faults: .venv/tested
	$(BIN)/python -m pytest -m 'faults and not slow'

test-all: .venv/tested
	$(BIN)/python -m pip install -q -e '.[test,cluster,benchmark]'
	$(BIN)/python tests/record.py

check: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

docs: .venv/tested
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: .venv/tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv site build dist *.egg-info
