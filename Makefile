# Every target does its own set-up on a fresh Debian machine and is quick when nothing changed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/llm-operator
UV ?= $(shell command -v uv || echo $(CACHE)/uv/bin/uv)
PYTHON := $(UV) run --locked --all-extras --all-groups
export UV_SYSTEM_CERTS ?= 1

# What no test may undercut: all code, and the pure packages, which have no excuse.
COVERAGE_PERCENT := 88
PURE_COVERAGE_PERCENT := 98
PURE := operator/llm_operator/api/*,operator/llm_operator/planner/*,operator/llm_operator/scaling/*,operator/llm_operator/reconcile/*,serving_image/llm_engine/scheduling/*,serving_image/llm_engine/contract/*

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(UV) ## Python environment (uv, locked)
	@$(UV) sync --locked --all-extras --all-groups

# Where there is no uv: one of our own, outside the checkout and outside the system's Python.
$(CACHE)/uv/bin/uv:
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { \
	  [ "$$(id -u)" = 0 ] || { echo "error: python3-venv is missing; as root: apt-get install python3-venv" >&2; exit 1; }; \
	  echo "==> installing the Debian packages python3-venv and ca-certificates"; \
	  apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv ca-certificates >/dev/null; }
	@echo "==> installing uv into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv
	@$(CACHE)/uv/bin/pip install --quiet uv

.PHONY: demo
demo: setup ## Cluster, images, chart, a model, a chat, a burst of load
	$(PYTHON) python -m e2e.demo

.PHONY: test
test: ## Everything that CI runs, with the time of each stage at the end
	@for stage in lint test-unit test-cluster test-e2e; do \
	  echo "==> make $$stage"; start=$$SECONDS; $(MAKE) --no-print-directory $$stage; \
	  summary+=$$(printf '\n  %-14s %4d s' $$stage $$((SECONDS - start))); \
	done; echo "Every stage passed:$$summary"

.PHONY: lint
lint: setup ## ruff, mypy, import-linter, deptry, generated files current
	$(PYTHON) ruff format --check .
	$(PYTHON) ruff check .
	$(PYTHON) mypy operator serving_image tests e2e
	$(PYTHON) lint-imports
	$(PYTHON) deptry .
	$(PYTHON) python -m llm_operator.cli generate --check

.PHONY: test-unit
test-unit: setup ## No cluster, seconds to minutes
	$(PYTHON) python -m e2e.cluster build helm
	$(PYTHON) coverage run -m pytest tests -m "not cluster"
	$(PYTHON) coverage report --format=total --fail-under=$(COVERAGE_PERCENT)
	$(PYTHON) coverage report --include='$(PURE)' --skip-covered --fail-under=$(PURE_COVERAGE_PERCENT)

.PHONY: fuzz
fuzz: setup ## New random examples for every property (FUZZ=path narrows it); not part of `make test`
	HYPOTHESIS_PROFILE=fuzz $(PYTHON) pytest $(or $(FUZZ),tests) -m "not cluster" --timeout 3600

.PHONY: test-cluster
test-cluster: setup ## A real API server, no kubelet
	$(PYTHON) python -m e2e.cluster build kubernetes helm
	$(PYTHON) pytest tests -m cluster

.PHONY: test-e2e
test-e2e: cluster-up images ## The stories, on a real Kubernetes
	$(PYTHON) pytest e2e

.PHONY: cluster-up
cluster-up: setup ## Start the embedded Kubernetes (or check CLUSTER=current)
	$(PYTHON) python -m e2e.cluster up

.PHONY: cluster-down
cluster-down: setup ## Stop it and leave nothing behind
	$(PYTHON) python -m e2e.cluster down

.PHONY: images
images: setup ## Build both images and load them into the cluster
	$(PYTHON) python -m e2e.cluster images

.PHONY: generate
generate: setup ## CRDs, reference docs and the chart's copies
	$(PYTHON) python -m llm_operator.cli generate
	PYTHONPATH=serving_image $(PYTHON) python -m llm_engine.server.openapi_main > docs/openapi.json
