# `make help` prints the targets. Everything they need is installed on first use, from hashed locks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help up test check format proto bench audit clean
.DEFAULT_GOAL := help

help: ## Print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

up: $(VENV)/.local ## Start the whole platform, make a purchase through the edge, stay up until Ctrl-C
	@exec $(BIN)/python -m dev.up

test: $(VENV)/.dev ## Prove everything: checks, unit, contract, integration, end to end; the audit closes it
	@exec $(BIN)/python -m dev.test

check: $(VENV)/.dev ## The fast half: format, lint, types, layers, contract, drift, tidy, unit tests (under a minute)
	@exec $(BIN)/python -m dev.check

format: $(VENV)/.dev ## Format code and contract in place
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/buf format -w proto

proto: $(VENV)/.dev ## Make generated/ and the state diagrams anew
	@$(BIN)/python -m dev.proto && $(BIN)/python -m dev.diagrams

bench: $(VENV)/.dev ## Measure the hot paths of the ledger; the audit closes it
	@exec $(BIN)/python -m dev.bench

audit: $(VENV)/.local ## Prove the books of the running stack
	@exec $(BIN)/paymesh audit

clean: ## Remove everything that was made here: environment, data, caches
	@rm -rf $(VENV) .paymesh .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than its lock once the lock is installed; an unchanged lock costs nothing.
$(VENV)/bin/uv: requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: install it, or set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "  environment      making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@touch $@

$(VENV)/.local: requirements/local.lock pyproject.toml $(VENV)/bin/uv
	@test -e $(VENV)/.dev || { echo "  packages         installing requirements/local.lock"; \
	  $(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/local.lock; }
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml $(VENV)/bin/uv
	@echo "  packages         installing requirements/dev.lock"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
