# Every target does its own set-up: a fresh machine needs Python 3.11+ and make.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
STACK ?= ai-dev
# uv from PATH, else a pinned one in .tools/.
UV_VERSION := 0.13.8
UV := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
RUN := .venv/bin
SYNCED := .venv/.synced

.PHONY: help setup preview up down cluster-up cluster-down bench gateway-load schemas docs test check lint format types lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(SYNCED) ## make .venv from requirements.lock

preview: $(SYNCED) ## show what `pulumi up` would create (STACK=ai-dev), without an account or a cluster
	@$(RUN)/ops plan --stack $(STACK)

up: $(SYNCED) ## bring up the local stack on an embedded cluster, with one model
	@$(RUN)/ops up

down: $(SYNCED) ## remove the embedded cluster and everything else in .local/
	@$(RUN)/ops cluster down --everything

cluster-up: $(SYNCED) ## start the embedded cluster alone
	@$(RUN)/ops cluster up

cluster-down: $(SYNCED) ## stop the embedded cluster and remove its data
	@$(RUN)/ops cluster down --wipe

bench: $(SYNCED) ## print how fast a plan is, against the SDK alone and the real engine
	@$(RUN)/python -m ops.plan_speed

gateway-load: $(SYNCED) ## measure the gateway under load, on the real LiteLLM
	@$(RUN)/python -m tests.gateway.load

schemas: $(SYNCED) ## write docs/schemas anew from the types and the catalog
	@$(RUN)/ops schema config --write
	@$(RUN)/ops schema catalog --write
	@$(RUN)/ops schema overlay --write

test: schemas docs check ## lint, types and every test
	$(RUN)/pytest -n 2

check: lint types

lint: $(SYNCED)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

format: $(SYNCED) ## rewrite the sources in the house style
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

types: $(SYNCED)
	$(RUN)/basedpyright

docs: $(SYNCED) ## make the tables, diagrams and pictures of docs/ from the program
	@$(RUN)/python -m docs.generate

lock: $(UV) ## resolve pyproject.toml into requirements.lock (hashes, no registry addresses)
	$(UV) pip compile -q pyproject.toml --group dev --universal --generate-hashes --upgrade \
	  --custom-compile-command 'make lock' -o requirements.lock

$(SYNCED): requirements.lock pyproject.toml | $(UV)
	@echo "installing the packages of requirements.lock into .venv, once" >&2
	@$(UV) venv -q --allow-existing --python '>=3.11' .venv
	@VIRTUAL_ENV=.venv $(UV) pip sync -q --compile-bytecode --require-hashes requirements.lock
	@VIRTUAL_ENV=.venv $(UV) pip install -q --no-deps --no-build-isolation -e .
	@$(RUN)/python -m compileall -q components models ops stacks
	@echo "preparing the SDKs for fast plans (ops/fast_imports.py), a few seconds, once" >&2
	@$(RUN)/ops plan --stack ai-dev > /dev/null 2>&1 || true
	@touch $@

.tools/uv/bin/uv:
	@echo "no uv on PATH: installing uv $(UV_VERSION) into .tools/" >&2
	@$(PYTHON) -m venv .tools/uv && .tools/uv/bin/pip install -q uv==$(UV_VERSION)

clean: ## remove what set-up made
	rm -rf .venv .tools out
