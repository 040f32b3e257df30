# `make help` prints the targets. Everything they need is installed on first use, from hashed locks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each target first sees to its lock; where that is installed already, this takes a few hundredths of a second.
NEEDS_LOCAL = @$(PYTHON) -m dev.bootstrap local
NEEDS_DEV = @$(PYTHON) -m dev.bootstrap dev

.PHONY: help up test check format proto bench chaos audit clean
.DEFAULT_GOAL := help

help: ## Print this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "%-15s %s\n", $$1, $$2}'

up: ## Start the whole platform, make a purchase through the edge, stay up until Ctrl-C
	$(NEEDS_LOCAL)
	@exec $(BIN)/python -m dev.up --under-make

test: ## Prove everything: checks, unit, contract, integration, end to end; the audit closes it
	$(NEEDS_DEV)
	@exec $(BIN)/python -m dev.test

check: ## The fast half: format, lint, types, layers, contract, drift, tidy, unit tests (under a minute)
	$(NEEDS_DEV)
	@exec $(BIN)/python -m dev.check

format: ## Format code and contract in place
	$(NEEDS_DEV)
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/buf format -w proto

proto: ## Make generated/ and the state diagrams anew
	$(NEEDS_DEV)
	@$(BIN)/python -m dev.proto && $(BIN)/python -m dev.diagrams

bench: ## Measure the hot paths as ratios (ONLY=P3,P9 picks); writes build/bench.json, the audit closes each
	$(NEEDS_DEV)
	@exec $(BIN)/python -m dev.bench

chaos: ## The long proofs (ONLY=payments picks; hours); prints counts and seeds, writes build/chaos.json
	$(NEEDS_DEV)
	@exec $(BIN)/python -m dev.chaos

audit: ## Prove the books of the running stack
	$(NEEDS_LOCAL)
	@exec $(BIN)/paymesh audit

clean: ## Remove everything that was made here: environment, data, caches
	@exec $(PYTHON) -m dev.clean
