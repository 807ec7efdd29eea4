# Everything a developer or CI runs. `make help` lists it.
#
#   make try           fine-tune a small model on this machine's CPU: no cluster, no Docker, no root
#   make demo          from an empty machine to a fine-tuned model on a real one-node cluster
#   make check         format, lint, types, imports, quick unit tests: under 2 minutes, before every commit
#   make test          all tiers: unit, serving (real vLLM), api (real control plane), e2e (real node, containers, images)
#   make reviewable    regenerate CRDs, docs and schemas; fails when something was not committed
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV = $(shell PYTHON=$(PYTHON) hack/venv)
# One thread: tests and the demo share two cores, and tiny models are faster without parallel overhead.
export OMP_NUM_THREADS ?= 1
export PYTHONPATH := crds:kube:operator:gateway:serving:trainer_image:hack

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: venv
venv: ## Make the Python environment (or reuse it) and link it as .venv.
	@ln -sfn "$(VENV)" .venv

# --- checks -----------------------------------------------------------------------------------------------------------

.PHONY: check static format lint types imports generated vocabulary
check: static test-quick ## Static checks and quick unit tests.

static: format lint types imports generated vocabulary ## Format, lint, types, imports, generated files, vocabulary.

format: venv ## Fail when a file is not formatted (fix: make fix).
	@.venv/bin/ruff format --check --quiet . || { echo "not formatted; run: make fix"; exit 1; }

lint: venv ## Lint with ruff.
	@.venv/bin/ruff check --quiet .

types: venv ## mypy --strict on all packages.
	@.venv/bin/mypy

imports: venv ## The import rules (import-linter).
	@out=$$(.venv/bin/lint-imports --no-cache) || { echo "$$out"; exit 1; }; echo "$$out" | grep 'Contracts:'

generated: venv ## Fail when generated CRDs, docs or schemas are stale.
	@.venv/bin/python hack/generate.py --check || { echo "generated files are stale; run: make generate"; exit 1; }

vocabulary: venv ## Fail on words that the glossary replaces (docs/glossary.md).
	@.venv/bin/python hack/vocabulary.py || { echo "use the words on the right; docs/glossary.md lists the terms"; exit 1; }

.PHONY: fix generate reviewable lock models
fix: venv ## Format and apply ruff's safe fixes.
	@.venv/bin/ruff format --quiet . && .venv/bin/ruff check --fix .

generate: venv ## Write CRDs, the chart's CRD templates, schemas and the API reference.
	@.venv/bin/python hack/generate.py

reviewable: fix generate ## Regenerate everything; fails on a dirty tree.
	@git diff --exit-code --stat || { echo "the files above changed; commit them"; exit 1; }

# Not part of `generate`, since it trains some 350 tiny models.
models: venv ## Write the table of architectures, docs/models.md.
	@.venv/bin/python hack/models_table --out docs/models.md

# Locks carry hashes and no registry address. operator.txt and trainer.txt are subsets of dev.txt; moto.txt and
# llama-cpp.txt are the separate environments of programs that tests use, server.txt that of the serving engine.
UV_COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
lock: venv ## Resolve the lock files from pyproject.toml.
	@$(UV_COMPILE) --all-extras pyproject.toml -o requirements/dev.txt
	@$(UV_COMPILE) --extra operator --extra gateway --extra serving -c requirements/dev.txt pyproject.toml -o requirements/operator.txt
	@$(UV_COMPILE) --extra trainer -c requirements/dev.txt pyproject.toml -o requirements/trainer.txt
	@$(UV_COMPILE) requirements/moto.in -o requirements/moto.txt
	@$(UV_COMPILE) requirements/llama-cpp.in -o requirements/llama-cpp.txt
	@$(UV_COMPILE) --override requirements/server-overrides.txt requirements/server.in -o requirements/server.txt

# --- tests ------------------------------------------------------------------------------------------------------------

PYTEST = .venv/bin/python -m pytest --quiet

.PHONY: test test-quick test-unit test-serving test-api test-e2e test-gpu campaign-trainer
test: ## All tiers.
	@$(MAKE) test-unit
	@$(MAKE) test-serving
	@$(MAKE) test-api
	@$(MAKE) test-e2e
	@$(PYTHON) hack/cluster disk

test-quick: venv ## Offline tests without the slow ones.
	@$(PYTEST) tests/unit -n 2 -m "not slow"

test-unit: venv ## Offline tests, about 5 minutes.
	@echo "== tier: unit (offline) =="
	@$(PYTEST) tests/unit -n 3 --dist worksteal

# In one process, since an engine takes 2 GB of memory and half a minute to start.
test-serving: venv ## The proxy with the real vLLM on the CPU: no cluster, no root (the first run installs 6 GB).
	@echo "== tier: serving (real vLLM on the CPU; the first run installs it, 2 to 4 minutes) =="
	@PYTHON=$(PYTHON) hack/venv server >/dev/null
	@$(PYTEST) tests/serving

# Tests mostly wait, so there are more processes than cores; tests/api/conftest.py distributes the files. GOGC makes the
# Go programs of six control planes collect garbage less often, which saves a tenth of the CPU.
test-api: venv ## Against a real kube-apiserver, etcd, controller-manager and scheduler.
	@echo "== tier: api (real control plane; the first run builds it, about 6 minutes) =="
	@$(PYTHON) hack/cluster build api >/dev/null
	@GOGC=400 $(PYTEST) tests/api -n 6

# Not part of `make test`, since it builds Kueue. It verifies what the api tier simulates of Kueue.
.PHONY: test-kueue
test-kueue: venv ## Kueue mode with Kueue's own manager (the first run builds it, about 10 minutes).
	@echo "== tier: kueue (real control plane, Kueue from its module, fake nodes) =="
	@$(PYTHON) hack/cluster build kueue >/dev/null
	@$(PYTEST) tests/kueue

# Tests wait for the capacity of the node; tests/e2e/conftest.py distributes them.
test-e2e: venv ## On a real node: kubelet, containers, images (root; the first run builds it, about 10 minutes).
	@echo "== tier: e2e (real node; the first run builds binaries and images) =="
	@$(PYTHON) hack/cluster build node >/dev/null
	@$(PYTEST) tests/e2e -n 6 --ignore tests/e2e/serving

# Not part of `make test` yet: building the engine's image takes 7 minutes and 16 GB of disk.
.PHONY: test-e2e-serving
test-e2e-serving: venv ## ModelDeployments on a real node, with the real vLLM (root; the first run builds its image).
	@echo "== tier: e2e-serving (real node, real vLLM; the first run builds binaries and images) =="
	@$(PYTHON) hack/cluster build node >/dev/null
	@PYTHON=$(PYTHON) hack/venv server >/dev/null
	@$(PYTEST) tests/e2e/serving

test-gpu: venv ## On an NVIDIA GPU; skipped with a message where there is none.
	@echo "== tier: gpu =="
	@$(PYTEST) tests/gpu

# The unit tier runs a sample. The seed is random; SEED=7 repeats one.
campaign-trainer: venv ## Trainers killed, stopped and continued at any instant: 400 trials, about 15 minutes.
	@echo "== campaign: trainer (offline, no cluster) =="
	@PYTHONPATH=.:$$PYTHONPATH .venv/bin/python -m tests.campaign $(if $(SEED),--seed $(SEED)) $(if $(COUNT),--count $(COUNT))

# Every write of a job's lifecycle x kill -9 at three instants, x 409, 429, 500, 503, reset and a lost response; every
# watch event dropped and held; a 30 s outage; 1,000 idle jobs: about 1000 runs, more than half an hour on two idle cores.
# ONLY=kills, answers or events; SAMPLE=10 cases per row.
.PHONY: campaign-operator
campaign-operator: venv ## All faults between the operator and the API server; prints a table, fails on a difference.
	@TRAINYARD_OUTAGE_SECONDS=30 TRAINYARD_IDLE_JOBS=1000 $(PYTEST) tests/api/test_faults.py
	@PYTHONPATH=$(PYTHONPATH):. .venv/bin/python -m tests.faults.campaign $(if $(ONLY),--only $(ONLY)) $(if $(SAMPLE),--sample $(SAMPLE))

# 2,000 TrainingJobs on 64 fake nodes of 8 GPUs; the same with 100 kills of the operator; two replicas; nodes that come and
# go: about half an hour on two idle cores. ONLY=load, kills, replicas or chaos; NODES, JOBS, KILLS, SECONDS_EACH; SEED=7 repeats one.
.PHONY: campaign-queue
campaign-queue: venv ## The GPU queue at full size, with kills, two replicas and disturbances; prints figures.
	@$(PYTHON) hack/cluster build api >/dev/null
	@PYTHONPATH=.:$$PYTHONPATH .venv/bin/python -m tests.queueing.campaign $(if $(ONLY),--only $(ONLY)) $(if $(NODES),--nodes $(NODES)) $(if $(JOBS),--jobs $(JOBS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH)) $(if $(SEED),--seed $(SEED))

# --- benchmarks -------------------------------------------------------------------------------------------------------

# JSON=FILE also writes the report there; QUICK=1 is a smoke test. Run on an idle machine, or state the load.
BENCH = PYTHONPATH=.:$$PYTHONPATH .venv/bin/python -m benchmarks
BENCH_OPTIONS = $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

.PHONY: bench bench-operator bench-queue bench-trainer bench-training bench-gpu
bench: ## All benchmarks, one table each.
	@$(MAKE) bench-operator
	@$(MAKE) bench-queue
	@$(MAKE) bench-trainer
	@$(MAKE) bench-training

bench-operator: venv ## Latency, writes, idle cost and restart of operator and gateway: about 8 minutes.
	@$(PYTHON) hack/cluster build api >/dev/null
	@$(BENCH).operator $(BENCH_OPTIONS)

bench-queue: venv ## 2,000 jobs on 64 and 512 fake GPUs: order, GPU use, speed and cost: about 25 minutes.
	@$(PYTHON) hack/cluster build api >/dev/null
	@$(BENCH).queue $(BENCH_OPTIONS)

bench-trainer: venv ## Start, checkpoint stall and recovery of the trainer: about 6 minutes, no cluster.
	@$(BENCH).trainer $(BENCH_OPTIONS)

bench-training: venv ## Speed and memory of training beside transformers.Trainer: about 13 minutes, CPU only.
	@$(BENCH).training $(BENCH_OPTIONS)

bench-gpu: venv ## The same for an 8B model on a GPU; skipped with a message where there is none.
	@$(BENCH).gpu.training $(if $(JSON),--json $(JSON))

# --- quickstart and demo -------------------------------------------------------------------------------------------------------------

.PHONY: try demo clean-demo
try: venv ## Fine-tune a small model on the CPU, and compare it before and after: no cluster, Docker or root.
	@.venv/bin/python -m quickstart

demo: venv ## Build a cluster and fine-tune a model on it. MODEL=hf://org/name uses another base model.
	@.venv/bin/python -m demo up $(if $(MODEL),--model $(MODEL))

clean-demo: ## Remove every process, mount, bridge and file the demo made (KEEP_CACHE=1 keeps what was built).
	@PYTHONPATH=hack:kube $(PYTHON) -m demo clean $(if $(KEEP_CACHE),--keep-cache)
