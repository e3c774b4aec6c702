# make demo   see it work        make test   run the tests       make check   format, lint and types
# make docs   build the site     make bench  measure speed       make fuzz        many broken inputs
# make reliability  break everything, write the table
# make lock   renew requirements-ci.txt after a change of dependencies (needs uv)
# make clean  back to a fresh clone; models, data sets and demos stay
#
# With LOCK=requirements-ci.txt, as in CI, exactly the files listed there are installed, each checked by its hash.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The share of the code that the tests must run, in percent.
COVERED := 94
# The benchmarks of some minutes. The others need trained models and hours: see their --help.
QUICK := bleeding cost engines gpu growth load peers processes shards stage2 waiting

.PHONY: demo test check docs bench fuzz reliability lock clean

demo: $(STAMP)
	$(BIN)/photochrom demo

test: $(STAMP)
	$(BIN)/python -m pytest --cov=photochrom --cov-report=term:skip-covered --cov-fail-under=$(COVERED)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@set -e; for name in $(QUICK); do echo "== $$name"; $(BIN)/python "benchmarks/$$name.py"; done

fuzz: $(STAMP)
	$(BIN)/python -m pytest tests/test_fuzz.py --thorough

reliability: $(STAMP)
	$(BIN)/python -m pytest tests -m fault --thorough --report docs/measurements/reliability.md

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lock:
	printf 'hatchling\neditables\n' | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --upgrade --no-config --custom-compile-command 'make lock' \
	  --extra dev --output-file requirements-ci.txt pyproject.toml -

$(STAMP): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit("Photochrom needs Python 3.11 or later: run make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV). The first time, PyTorch comes along: some minutes, and some GB.'
	@if [ -n '$(LOCK)' ]; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r '$(LOCK)' && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
