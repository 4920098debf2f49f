# One task for each habit: `make TASK`. The tasks use the environment .venv (see CONTRIBUTING.md);
# `make PYTHON=python test` uses another one.
PYTHON ?= .venv/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help install test slow faults lint format types doctest docs-snippets demo sanitize fuzz benchmarks

help:  ## List the tasks
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

install:  ## Create .venv and install the package for development
	python3 -m venv .venv
	.venv/bin/python -m pip install -e '.[test]'

test:  ## Run the tests (8 to 10 minutes on 2 cores)
	$(PYTHON) -m pytest

slow:  ## Run the slow tests
	$(PYTHON) -m pytest -m slow

faults:  ## Kill commands, fill disks and damage files (about an hour on 2 cores)
	$(PYTHON) -m pytest -m slow tests/test_fault_injection.py

lint:  ## Check style, docstrings and the floors of the package
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -c "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"

format:  ## Format the code
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

types:  ## Check the types of the package
	$(PYTHON) -m mypy

doctest:  ## Run the examples of the docstrings
	$(PYTHON) -m pytest --doctest-modules keras_disrnn

docs-snippets:  ## Run the code of the documentation pages
	$(PYTHON) -m pytest -n 0 tests/test_docs_*.py

demo:  ## Run the synthetic experiment in runs/demo
	$(PYTHON) -m keras_disrnn demo --out runs/demo

sanitize:  ## Run the native library under the sanitizers (4 to 15 minutes)
	sh keras_disrnn/native/sanitize.sh

fuzz:  ## Fuzz the readers with many random inputs
	$(PYTHON) -m pytest -n 0 --hypothesis-profile=slow tests/test_fuzz_readers.py

benchmarks:  ## Check that every benchmark starts
	@for file in benchmarks/*.py; do \
	  echo $$file; $(PYTHON) $$file --help > /dev/null || exit 1; \
	done
