# Two commands on a fresh machine: `make up` and `make test`. Both prepare what is missing, once.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

CNI ?= flannel
ARGS ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help up down setup test lint unit live test-vm bench test-tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

up: setup ## start a testbed and check it: make up CNI=flannel ARGS="--nodes 5"
	@$(BIN)/testbed up $(CNI) $(ARGS)

down: $(INSTALLED) ## remove every testbed
	@$(BIN)/testbed down --all

setup: $(INSTALLED) ## Docker engine, kernel modules, node image: what is there is kept
	@$(BIN)/testbed setup

test: lint unit live ## every check and every test

lint: $(INSTALLED) ## ruff, ruff format, mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict

unit: $(INSTALLED) test-tools ## tests without Docker: unit, golden, errors, the image's programs
	$(BIN)/pytest tests/unit tests/errors tests/images tests/compose $(ARGS)

live: setup test-tools ## tests on real nodes
	$(BIN)/pytest -p no:hypothesispytest tests/live $(ARGS)

test-vm: setup ## live tests under Debian's own kernel, in QEMU: make test-vm ARGS="-k ipip"
	@command -v mmdebstrap >/dev/null || .ci/apt mmdebstrap debian-archive-keyring gpg
	@command -v mke2fs >/dev/null || .ci/apt e2fsprogs
	@$(BIN)/python -m tests.vm.lane $(if $(KERNEL),--kernel $(KERNEL)) -- $(ARGS)

bench: setup ## measure: up, down, status, overhead, throughput, Services
	$(BIN)/python -m tests.benchmarks.bench

test-tools: ## tshark and docker-compose, the tests' independent judges, and a C compiler
	@command -v tshark >/dev/null || .ci/apt tshark
	@command -v docker-compose >/dev/null || .ci/apt docker-compose
	@command -v cc >/dev/null || .ci/apt gcc libc6-dev

clean: ## remove every testbed, .venv and what tools leave behind; the node image stays
	@if [ -x $(BIN)/testbed ]; then $(BIN)/testbed down --all || true; fi
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .testbed
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@.ci/venv
