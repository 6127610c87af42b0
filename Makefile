# `make` or `make help` lists the targets. Everything runs in .venv, made from requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Also without an installed console script on the PATH, `dvc`, `ganpipe` and `python` are those of .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help venv moved run test test-slow reliability bench bench-notes bench-gans audit lint ui stop lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(INSTALLED) ## make .venv from requirements.lock (done by the others where needed)

# An environment does not follow a checkout that is moved or copied: its commands and its install name the place where it
# was made. One that another tool made says nothing of its place, and is taken as it is.
MADE_IN := sed -n 's,^command = .* -m venv \(/.*\)$$,\1,p' $(VENV)/pyvenv.cfg 2> /dev/null || true
MOVED := $(shell made="$$($(MADE_IN))"; [ -z "$$made" ] || [ "$$(readlink -f "$$made")" = "$$(readlink -f $(VENV))" ] || echo moved)
ifeq ($(MOVED),moved)
$(INSTALLED): moved
endif

moved:
	@echo "$(VENV) was made at another place: it is made anew here"
	@rm -rf $(VENV)

# The mark .installing outlives an install that was cut short: the next one then starts from nothing.
$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { \
	  echo "error: no $(PYTHON) here. ganpipe needs Python 3.11: install it (https://www.python.org/downloads/, or your" >&2; \
	  echo "       system's package python3.11 with python3.11-venv), or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else \
	  f"error: $(PYTHON) is Python {v[0]}.{v[1]}; requirements.lock is made for 3.11: make PYTHON=python3.11")'
	@if [ -e $(VENV)/.installing ] || ! $(BIN)/python -m pip --version > /dev/null 2>&1; then rm -rf $(VENV); fi
	@[ -d $(VENV) ] || $(PYTHON) -m venv $(VENV) || { \
	  echo "error: $(PYTHON) cannot make a virtual environment: its venv package may be missing (python3.11-venv)" >&2; exit 1; }
	@touch $(VENV)/.installing
	@echo "installing into $(VENV) (some minutes the first time)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@rm $(VENV)/.installing && touch $@

run: $(INSTALLED) ## the whole pipeline on this machine; again: only what changed
	@$(BIN)/python -m pipelines

# One process for each CPU, 4 at most (tests/groups.py); each with one OpenMP thread, because the networks are small.
test: $(INSTALLED) ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --no-loadscope-reorder

# Those of infra/ need root (network namespaces), and install PostgreSQL from Debian where it is missing.
test-slow: $(INSTALLED) ## the tests that take minutes; on a machine with a GPU also: pytest -m gpu
	$(BIN)/python -m pytest -m "slow and not gpu"

reliability: $(INSTALLED) ## break things for real, and write docs/reliability.md's table from what was seen
	rm -f .ganpipe/reliability.jsonl
	$(BIN)/python -m pytest -m "fault and not gpu" || echo "some faults were not survived; the table says which" >&2
	$(BIN)/python tests/reliability.py

audit: $(INSTALLED) ## known vulnerabilities of the packages in requirements.lock; AUDIT=--strict: offline is an error
	$(BIN)/python tests/audit.py $(AUDIT)

bench: $(INSTALLED) ## measure what docs/performance.md promises, about 40 minutes; bench-notes: time to the notes' quality
	$(BIN)/python -m benchmarks

bench-notes: $(INSTALLED)
	$(BIN)/python -m benchmarks.notes

bench-gans: $(INSTALLED) ## every GAN on the same data for the same time: the tables of docs/gans.md, some five hours; goes on where it ended
	$(BIN)/python -m benchmarks.gans

lint: $(INSTALLED) audit ## ruff, mypy and the audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: $(INSTALLED) ## start the pages of MLflow, Prefect and Ray, and say where they are
	@$(BIN)/python -m ganpipe up

stop: $(INSTALLED) ## stop the background services
	@$(BIN)/python -m ganpipe down

lock: ## write requirements.lock anew from pyproject.toml, in a fresh environment
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(PYTHON) -m venv "$$scratch" && \
	"$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check '.[dev]' && \
	{ echo "# Written by \`make lock\`: everything that ganpipe and its tests run on. Which build of torch: pip's configuration decides."; \
	  "$$scratch/bin/python" -m pip freeze --exclude ganpipe --exclude setuptools --exclude pip | \
	  sed -E 's/^([^ ]+==[^+ ]+)\+[A-Za-z0-9.]+$$/\1/' | LC_ALL=C sort -f; } > requirements.lock.new && mv requirements.lock.new requirements.lock
	@echo "requirements.lock: $$(grep -c == requirements.lock) packages"
