# make demo   see it work        make test   run the tests       make check   format, lint and types
# make bench  measure speed      make fuzz   many broken inputs  make reliability  break everything, write the table
# make clean  back to a fresh clone; models, data sets and demos stay
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench fuzz reliability clean

demo: $(STAMP)
	$(BIN)/photochrom demo

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@set -e; for script in $(sort $(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(BIN)/python "$$script"; done

fuzz: $(STAMP)
	$(BIN)/python -m pytest tests/test_fuzz.py --thorough

reliability: $(STAMP)
	$(BIN)/python -m pytest -m fault --thorough --report docs/reliability.md

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Photochrom needs Python 3.11 or later: run make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV). The first time, PyTorch comes along: some minutes, and some GB.'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
