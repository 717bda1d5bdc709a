# mlstack: `make` lists the targets. Every target does its own set-up (scripts/setup.sh).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export LC_ALL := C.UTF-8

# Added to ansible-playbook's command line: make sandbox ARGS="-e sandbox_mlflow_port=5001"
ARGS ?=
MLFLOW_PORT ?= 5000
STREAMLIT_PORT ?= 8501
SCORING_PORT ?= 8502

setup := scripts/setup.sh
sandbox_play := ansible-playbook -i inventory/sandbox playbooks
python_code := $(wildcard serving training streamlit_app scoring replication backup notify plugins scripts)

.PHONY: help
help: ## List the targets
	@printf 'Usage: make TARGET\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## The product

.PHONY: sandbox
sandbox: ## The whole platform on this machine, no AWS account needed (ARGS="-e sandbox_mlflow_port=5001")
	@start=$$SECONDS; $(setup) control ssh engine; $(sandbox_play)/sandbox_up.yml $(ARGS); \
	  printf 'make sandbox took %dm%02ds\n' $$(((SECONDS - start) / 60)) $$(((SECONDS - start) % 60))

.PHONY: sandbox-down
sandbox-down: ## Remove the sandbox's containers, networks and volumes, and nothing else
	@if timeout 20 docker info >/dev/null 2>&1; then \
	  $(setup) control; $(sandbox_play)/sandbox_down.yml $(ARGS); \
	else echo 'No Docker engine answers, so there is no sandbox to remove.'; fi

.PHONY: setup
setup: ## Install what ansible-playbook needs, for AWS or your own server
	@$(setup) control ssh

.PHONY: dev
dev: ## MLflow, a training, app and REST as plain processes: no Docker, no root (MLFLOW_PORT, ..., TRAIN=1)
	@$(setup) dev
	@exec .venv/bin/python scripts/dev.py --mlflow-port $(MLFLOW_PORT) --streamlit-port $(STREAMLIT_PORT) --scoring-port $(SCORING_PORT) \
	  $(if $(filter-out 0,$(TRAIN)),--train)

## The tests: each folder of tests/ and of molecule/ is a job. Jobs run side by side (scripts/jobs.py).

jobs := .venv/bin/python scripts/jobs.py
scenarios := $(patsubst molecule/%/molecule.yml,molecule-%,$(wildcard molecule/*/molecule.yml))
SCENARIOS ?= $(scenarios:molecule-%=%)
units := $(patsubst tests/%/,unit-%,$(filter-out tests/provision/ tests/sandbox/ tests/faults/,$(sort $(dir $(wildcard tests/*/test_*.py)))))
# Long jobs start first, so that none is left over at the end; the hosts' images are built once.
long := test-provision molecule-default molecule-workers test-sandbox molecule-server
planned = $(patsubst molecule-%,molecule-%:images,$(patsubst test-sandbox,test-sandbox:images, \
  $(filter $(1),$(long)) $(filter-out $(long),$(1))))

.PHONY: test
test: setup-test ## All tests (make -k test continues after a failed job)
	@$(jobs) images $(call planned,lint-fast lint-ansible $(units) test-provision $(scenarios) test-sandbox)

.PHONY: test-fast
test-fast: setup-unit ## The linters and tests that take under a minute
	@$(jobs) lint-fast test-quick

.PHONY: lint
lint: lint-fast lint-ansible ## Every linter and the type checker

.PHONY: lint-fast
lint-fast: setup-dev ## Every linter but ansible-lint
	ruff check --quiet .
	ruff format --quiet --check .
	mypy --no-error-summary --explicit-package-bases $(python_code)
	yamllint --strict .
	shellcheck $$(git ls-files -co --exclude-standard '*.sh' .ci/run)

.PHONY: lint-ansible
lint-ansible: setup-dev ## ansible-lint with its production profile
	ANSIBLE_INVENTORY=inventory/server ansible-lint -q

.PHONY: test-unit $(units)
test-unit: setup-unit ## Tests that need no engine and no server
	@$(jobs) $(units)

$(units): unit-%: setup-unit
	pytest -q -m 'not provision and not sandbox' tests/$*

.PHONY: test-quick
test-quick: setup-unit ## The quick ones among them
	pytest -q -m 'not provision and not sandbox and not slow'

.PHONY: test-provision
test-provision: setup-dev ## The AWS playbooks against an emulator
	pytest -q -m provision tests/provision

.PHONY: test-molecule $(scenarios)
test-molecule: setup-molecule ## The roles and the site on systemd hosts in Docker (SCENARIOS="workers service")
	@$(jobs) images $(call planned,$(SCENARIOS:%=molecule-%))

$(scenarios): molecule-%: setup-molecule
	molecule test -s $*

.PHONY: images
images: setup-molecule
	ansible-playbook -i inventory/server -i molecule/shared/inventory.yml molecule/shared/images.yml

.PHONY: test-sandbox
test-sandbox: setup-test ## The sandbox from end to end, pages included
	@$(MAKE) sandbox
	BACK_AFTER=300 pytest -q -m sandbox tests/sandbox tests/faults

.PHONY: test-faults
test-faults: setup-test ## Faults at random under clients that write to the sandbox (FAULTS=200 SEED=1)
	@$(MAKE) sandbox
	FAULTS=$(or $(FAULTS),200) SEED=$(or $(SEED),1) pytest -q -s -m sandbox tests/faults

.PHONY: setup-dev
setup-dev:
	@$(setup) dev

.PHONY: setup-unit
setup-unit:
	@$(setup) dev sshd postgresql monitors

.PHONY: setup-molecule
setup-molecule:
	@$(setup) dev ssh engine

.PHONY: setup-test
setup-test:
	@$(setup) dev ssh sshd postgresql monitors engine browser

## Upkeep

.PHONY: format
format: setup-dev ## Format the Python code and fix what ruff can
	ruff check --quiet --fix .
	ruff format --quiet .

.PHONY: lock
lock: ## Compile requirements/*.in to hashed locks (UPGRADE=1 takes the newest versions)
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Remove everything built here: .venv, caches, `make dev`'s data (not the sandbox: see sandbox-down)
	rm -rf .venv .cache .dev .mypy_cache .pytest_cache .ruff_cache .ansible
