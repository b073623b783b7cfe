# The verbs of this repository; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hami-lab
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
RUN := $(UV) run --frozen --no-progress
LAB := $(PYTHON) -m e2e.lab
KUBE ?= 1.34.4
export KUBE

PYTHON_SOURCES := libs components e2e bench deploy
MYPY_SOURCES := libs/hamikit/src $(wildcard components/*/src/hami_*)
PYTHON_COMPONENTS := $(addprefix components/,webhook extender device-plugin monitor mig-manager)
C_SOURCES = $(shell git ls-files '*.c' '*.h')

.PHONY: mutants mutate help setup lint format unit up down images install uninstall env demo e2e test soak skew bench-extender release bench-webhook bench-core bench-gpu bench-node bench-mig bench-monitor

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(UV) ## the tools, pinned in uv.lock
	@$(UV) sync --frozen --quiet

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: apt-get install python3"; exit 1; }
	@$(PYTHON) -m venv $(CACHE)/uv-$(UV_VERSION) 2>/dev/null || { echo "python3-venv is needed: apt-get install python3-venv"; exit 1; }
	@$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet uv==$(UV_VERSION)

lint: setup ## ruff, mypy strict, import-linter, deptry, clang-format (clang-tidy: in hami-core's tests)
	$(RUN) ruff check $(PYTHON_SOURCES)
	$(RUN) ruff format --check $(PYTHON_SOURCES)
	$(RUN) mypy $(MYPY_SOURCES)
	$(RUN) lint-imports
	@for member in libs/hamikit $(PYTHON_COMPONENTS); do \
	  echo "deptry $$member"; (cd $$member && $(RUN) deptry src 2>&1) | grep -q Success || { (cd $$member && $(RUN) deptry src); exit 1; }; done
	$(RUN) clang-format --dry-run --Werror $(C_SOURCES)

format: setup ## put the sources into the house's form
	$(RUN) ruff check --fix-only --quiet $(PYTHON_SOURCES)
	$(RUN) ruff format $(PYTHON_SOURCES)
	$(RUN) clang-format -i $(C_SOURCES)

unit: setup ## tests that need no cluster
	$(RUN) pytest -q -n 2 -m 'not cluster'

up: setup ## the kind cluster, built from source where no registry can be reached
	@$(LAB) up

images: up ## build our images and put them on the nodes
	@$(RUN) python -m e2e.product images

install: images ## simulated cards on the nodes, our manifests on the cluster
	@$(RUN) python -m e2e.product install

uninstall: setup ## our manifests off the cluster, then what they left on the nodes
	@$(RUN) python -m e2e.product uninstall

env: ## variables for kubectl and docker: eval "$$(make env)"
	@$(LAB) env

demo: install ## the story: two pods share a card, a third waits and is told why
	@$(RUN) python -m e2e.demo

e2e: install ## tests on the cluster
	$(RUN) pytest -q --tb=short -m cluster --reruns $(or $(RERUNS),1) --max-suite-reruns 2 -p e2e.again e2e
	eval "$$($(LAB) env)"; $(RUN) pytest -q deploy

test: lint unit e2e ## everything that this machine can test
	@$(MAKE) --no-print-directory down

mutants: setup ## every known defect of such a limiter, brought back: its test must turn red
	@$(RUN) python components/hami-core/tests/mutants/run.py

mutate: setup ## small changes of the modules that decide where pods go: a test must notice 85 %
	@$(RUN) python components/extender/tests/mutate/run.py

SOAKS := $(addprefix soak-,storms limiter instances lab chaos blackout upgrades restarts waves mig operations ha)
.PHONY: $(SOAKS)

soak: ## the long storms, each whatever became of the others; shorter by variables, one alone: make soak-waves WAVES=2
	@$(MAKE) --no-print-directory --keep-going -j1 $(SOAKS)

soak-storms: setup
	STORMS=$(or $(STORMS),40) STORM_STEPS=$(or $(STORM_STEPS),1500) $(RUN) pytest -q --timeout 900 components/extender/tests/test_storm.py

soak-limiter: setup
	FUZZ_RUNS=$(or $(FUZZ_RUNS),2000000) KILLS=$(or $(KILLS),1000) STEPS=$(or $(STEPS),20000) $(RUN) pytest -q --timeout 7200 \
	  components/hami-core/tests/test_fuzz.py components/hami-core/tests/test_kills.py components/hami-core/tests/test_exactness.py

soak-instances: setup
	MIG_KILLS=$(or $(MIG_KILLS),all) $(RUN) pytest -q --timeout 900 components/mig-manager/tests/test_main.py

soak-lab: up
	KILL_ROUNDS=$(or $(KILL_ROUNDS),5) $(RUN) pytest -q -m cluster e2e/lab/tests/test_kill.py

soak-chaos: install
	CHAOS_ROUNDS=$(or $(CHAOS_ROUNDS),10) $(RUN) pytest -q -m cluster e2e/test_chaos.py

soak-blackout: install
	$(RUN) pytest -q -m soak e2e/test_blackout.py

soak-upgrades: install
	UPGRADES=$(or $(UPGRADES),21) $(RUN) pytest -q -m cluster e2e/test_upgrade.py -k device-plugin

soak-restarts: install
	RESTARTS=$(or $(RESTARTS),50) $(RUN) pytest -q -s -m soak e2e/test_restarts.py

soak-waves: install
	WAVES=$(or $(WAVES),21) $(RUN) pytest -q -s -m soak e2e/test_waves.py

soak-mig: install
	MIG_PODS=$(or $(MIG_PODS),200) $(RUN) pytest -q -s -m soak e2e/test_mig.py

soak-operations: install
	PINS=$(or $(PINS),5) $(RUN) pytest -q -m cluster e2e/test_operations.py

soak-ha: install
	HA_PODS=$(or $(HA_PODS),500) $(RUN) pytest -q -s --timeout 2400 -m cluster e2e/test_ha.py

skew: install ## each component at its previous version beside the others: SKEW="webhook=REF hami-core"
	$(RUN) pytest -q -s -m skew e2e/skew

release: setup ## a component's release: make release C=webhook V=0.2.0 (DRY=1 only shows it)
	@$(RUN) python -m deploy.release $(C) $(V) $(if $(DRY),--dry-run)

bench-gpu: setup ## the limiter on a real card, native beside ours; writes docs/benchmarks.md
	@$(RUN) python bench/gpu --write docs/benchmarks.md $(GPU_BENCH)

bench-webhook: setup ## the webhook beside one that says yes to everything
	@$(RUN) python bench/webhook.py

bench-extender: setup ## the extender's speed, memory and packing; PAIRS=1 for a quick look
	@PYTHONPATH=. $(RUN) python bench/extender.py --pairs $(or $(PAIRS),5)

bench-core: setup ## the limiter beside the bare driver: cost of calls, true shares; takes a quarter of an hour
	@$(RUN) python bench/core

bench-node: install ## the device plugin: kubelet's waits, memory, rest, 40 pods; NODE_BENCH="calls --rest-seconds 60" for a quick look
	@PYTHONPATH=. $(RUN) python bench/node $(NODE_BENCH)

bench-mig: install ## MIG: how often no instance is found, how much later a container starts; MIG_BENCH=places needs no cluster
	@PYTHONPATH=. $(RUN) python bench/mig $(MIG_BENCH)

bench-monitor: setup ## scrape and audit of a full node, beside an exporter of nothing
	@$(RUN) python bench/monitor

down: ## remove the cluster and everything it needed, but not the cache
	@$(LAB) down
