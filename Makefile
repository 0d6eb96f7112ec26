# Everything a person or CI runs. `make help` lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
CLUSTER ?= trtllm
REGISTRY ?=
UV_VERSION := 0.13.9
PYTEST := $(BIN)/python -m pytest -q
# Tests side by side, each process with an API server of its own. What computes takes as many as there are cores (2), what mostly waits one more.
SIDE_BY_SIDE = --dist worksteal -n $(or $(PROCESSES),$(1))
STAMP := .venv/.complete

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## make the virtual environment .venv from the lock file

$(STAMP): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "trtllm-operator needs Python 3.11 or newer: name one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-venv; } \
	  || { echo "Python's venv module is missing: install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import importlib.metadata as m; raise SystemExit(m.version("uv") != "$(UV_VERSION)")' 2>/dev/null \
	  || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync -q --frozen
	@touch $@

.PHONY: demo
demo: setup ## start a cluster, build and install everything, serve a model, talk to it
	@$(BIN)/python -m tests.demo --cluster $(CLUSTER) $(if $(REGISTRY),--registry $(REGISTRY))

.PHONY: down
down: setup ## remove all that demo and tests have made, and only that
	@$(BIN)/python -m tests.cluster down --all

.PHONY: clean
clean: setup ## down, and what was built for the cluster as well (about 12 GB)
	@$(BIN)/python -m tests.cluster down --all --cache

.PHONY: check
check: lint types layers unit crd loop ## what every commit must pass: about a quarter of an hour on 2 cores

.PHONY: test
test: check bench-quick test-faults e2e ## every tier; removes what it makes

.PHONY: lint
lint: setup ## style and form
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .

.PHONY: format
format: setup ## format the code and mend what can be mended
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

.PHONY: types
types: setup ## static types
	@$(BIN)/mypy operator/src tests images/simulator images/hub

.PHONY: layers
layers: setup ## imports go downwards only
	@$(BIN)/lint-imports --config pyproject.toml | tail -n 12

.PHONY: unit
unit: setup ## pure functions, and our programs as processes; PROCESSES of tests at a time (2; 0: in this one)
	@$(PYTEST) $(call SIDE_BY_SIDE,2) tests/unit

.PHONY: crd
crd: setup ## resources on a real API server: what it accepts and what it refuses
	@$(PYTEST) tests/crd

.PHONY: loop
loop: setup ## the operator on a real API server, without kubelets; PROCESSES of tests at a time (3; 0: in this one)
	@$(PYTEST) $(call SIDE_BY_SIDE,3) tests/loop

# SEED plays what that seed draws, PLAN (with SCENARIO) that plan, STEPS that sequence: a failure says which.
.PHONY: test-faults
test-faults: setup ## the operator under faults: killed at each write, refused, lied to, at random; SEED, PLAN or STEPS: one again
	@$(if $(SEED),FAULTS_SEED='$(SEED)') $(if $(SCENARIO),FAULTS_SCENARIO='$(SCENARIO)') $(if $(PLAN),FAULTS_PLAN='$(PLAN)') \
	  $(if $(STEPS),FAULTS_STEPS='$(STEPS)') $(PYTEST) $(if $(PLAN),tests/faults/test_replay.py,$(if $(STEPS),tests/faults/test_machine.py -k test_sequences,\
	  $(if $(SEED),tests/faults/test_machine.py tests/faults/test_random.py -k 'test_sequences or test_drawn_faults',tests/faults)))

.PHONY: soak
soak: setup ## the drawn part of test-faults for hours: SEQUENCES of them (500), from seed FIRST on
	@FAULTS_SEQUENCES=$(or $(SEQUENCES),500) FAULTS_SEEDS=$(or $(SEQUENCES),500) FAULTS_FIRST=$(or $(FIRST),1) \
	  $(PYTEST) tests/faults/test_machine.py tests/faults/test_random.py -k 'test_sequences or test_drawn_faults'
	@SOAK=1 $(PYTEST) tests/loop/test_faults_process.py -k 'away'

.PHONY: bench
bench: setup ## what the operator costs beside a bare client, about 20 minutes on a quiet machine; ARGS='--only restart'
	@$(BIN)/python -m tests.bench --json .bench.json $(ARGS)

.PHONY: bench-quick
bench-quick: setup ## the counts of the benchmark, which are exact, with 100 services
	@$(PYTEST) tests/bench

.PHONY: bench-compare
bench-compare: setup ## the operator as of revision BASE and as it is here, in turn
	@$(if $(BASE),,echo "give a revision: make bench-compare BASE=main" >&2; exit 2;) $(BIN)/python -m tests.bench --json .bench.json --compare $(BASE) $(ARGS)

.PHONY: e2e
e2e: setup ## all of Kubernetes, our images, the simulator
	@$(PYTEST) tests/e2e

.PHONY: e2e-disturbed
e2e-disturbed: setup ## the same, while the operator that leads is killed every 20 seconds
	@TRTLLM_E2E_DISTURB=1 $(PYTEST) -s tests/e2e

.PHONY: crds
crds: setup ## generate crds/ from the types
	@$(BIN)/trtllm-operator crds

.PHONY: docs
docs: setup ## write the generated pages of operator/docs: reasons and the reference of each kind
	@$(BIN)/python -m tests.support.docs

.PHONY: cluster
cluster: setup ## only the cluster; `make down` removes it
	@$(BIN)/python -m tests.cluster up --name $(CLUSTER)

.PHONY: images
images: setup ## build our images
	@$(BIN)/python -m tests.demo --images-only
