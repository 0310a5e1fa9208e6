# Every target does its own set-up on a fresh Debian machine and is quick when nothing changed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV ?= $(shell command -v uv || echo $(HOME)/.cache/llm-operator/uv/bin/uv)
PYTHON := $(UV) run --locked --all-extras --all-groups
export UV_SYSTEM_CERTS ?= 1

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: $(UV) ## Python environment (uv, locked)
	@$(UV) sync --quiet --locked --all-extras --all-groups

$(HOME)/.cache/llm-operator/uv/bin/uv:
	@echo "==> installing uv into $(HOME)/.cache/llm-operator/uv"
	@python3 -m venv $(HOME)/.cache/llm-operator/uv
	@$(HOME)/.cache/llm-operator/uv/bin/pip install --quiet uv

.PHONY: demo
demo: setup ## Cluster, images, chart, a model, a chat, a burst of load
	$(PYTHON) python -m e2e.demo

.PHONY: test
test: lint test-unit test-cluster test-e2e ## Everything that CI runs

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
	$(PYTHON) pytest tests -m "not cluster"

.PHONY: test-cluster
test-cluster: setup ## A real API server, no kubelet
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
