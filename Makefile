# The commands of this repository. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
# uv installs what uv.lock says; where it is missing, it is installed beside the virtual environment.
TOOLS := .tools
UV := $(shell command -v uv 2>/dev/null || echo $(TOOLS)/bin/uv)
RUN := $(VENV)/bin
WORKERS_OF_TESTS ?= 4
# Real data for the tests, from npm where npm is there.
DATA := tests/node_modules/.ready

.PHONY: help run test check format docs clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/.ready ## Serve on http://127.0.0.1:8000 from an embedded PostgreSQL
	@exec $(RUN)/credenza serve

test: $(VENV)/.ready-dev $(DATA) ## Run the test suite; ARGS="tests/test_x.py" runs a part
	$(RUN)/pytest -n $(WORKERS_OF_TESTS) --dist worksteal $(ARGS)

check: $(VENV)/.ready-dev ## Look for faults without running anything: ruff, mypy, generated docs
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/python docs/generate.py --check

format: $(VENV)/.ready-dev ## Put the code into its one format
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

docs: $(VENV)/.ready-dev ## Write docs/reference anew from the code
	$(RUN)/python docs/generate.py

clean: ## Remove what these commands have made; data stays
	rm -rf $(VENV) $(TOOLS) tests/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet --no-dev --inexact --extra embedded --python $(PYTHON)
	@touch $@

$(VENV)/.ready-dev: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet --extra embedded --python $(PYTHON)
	@touch $@ $(VENV)/.ready

$(DATA): tests/package.json tests/package-lock.json
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then npm ci --prefix tests --silent --no-audit --no-fund; \
	else echo "There is no npm: tests on npm's data sets are skipped."; fi
	@mkdir -p $(@D) && touch $@

$(TOOLS)/bin/uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'
