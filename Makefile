# make run: set up what is missing and show what happens on this node. Everything else: make help.
SHELL := /bin/bash
VENV := .venv
PIP := $(VENV)/bin/pip install -q --disable-pip-version-check -c requirements.lock
PYTEST := $(VENV)/bin/pytest
SOURCES := otelbpf tests scripts hatch_build.py
C_SOURCES := $(wildcard otelbpf/*/*.c otelbpf/*/*.h otelbpf/*/*/*.bpf.h)

.DEFAULT_GOAL := help
.PHONY: help run setup setup-test bpf test test-unit test-kernel test-e2e test-deploy test-backends test-kernels test-image bench lint format docs peers wheel clean

help:           ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: setup      ## watch this node; ARGS="-c config/examples/otlp.yaml" and the like go to `otelbpf run`
	@exec $(VENV)/bin/otelbpf run $(ARGS)

setup:          ## packages, virtual environment, BPF objects: what is missing of them
	@scripts/setup.sh run
	@$(MAKE) -s --no-print-directory $(VENV)/.installed bpf

setup-test:     ## the same, and what the tests and checks need
	@scripts/setup.sh test
	@$(MAKE) -s --no-print-directory $(VENV)/.installed-dev bpf

$(VENV)/bin/python:
	@python=$$(scripts/python.sh) && "$$python" -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml requirements.lock
	@echo "setup: Python packages, downloaded and installed; the first time this takes minutes"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "setup: Python packages for tests; the first time this takes a minute or two"
	@$(PIP) -e .[dev]
	@touch $@

bpf:            ## compile the C that is older than its sources: BPF objects, the loops of otelbpf/native
	@scripts/compile_bpf.sh $(BPF_FLAGS)
	@scripts/compile_native.sh $(BPF_FLAGS)

test: setup-test peers      ## all tests (root), but for those of test-backends, test-kernels and test-image
	$(PYTEST) --ignore tests/backends --ignore tests/kernels --ignore tests/image $(ARGS)

test-unit: $(VENV)/.installed-dev bpf     ## what needs neither root nor peers; a minute or two
	$(PYTEST) tests/unit tests/recorded $(ARGS)

test-kernel: setup-test     ## probes on this kernel (root)
	$(PYTEST) tests/kernel $(ARGS)

test-e2e: setup-test peers  ## the agent with a real collector (root)
	$(PYTEST) tests/e2e $(ARGS)

bench: setup-test           ## the figures of docs/performance.md (root)
	@scripts/setup.sh bench
	$(VENV)/bin/python -m tests.bench $(ARGS)

lint: $(VENV)/.installed-dev   ## ruff, mypy, clang-format
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	@command -v clang-format >/dev/null || { echo "lint: clang-format is missing; make setup-test (root) installs it" >&2; exit 1; }
	clang-format --dry-run --Werror $(C_SOURCES)

format: $(VENV)/.installed-dev ## what lint wants, as far as a program can do it
	-$(VENV)/bin/ruff check --fix -q $(SOURCES)
	$(VENV)/bin/ruff format -q $(SOURCES)
	clang-format -i $(C_SOURCES)

docs: $(VENV)/.installed-dev   ## what is generated from the code: config/otelbpf.yaml, tables in README and docs/
	$(VENV)/bin/python scripts/docs.py

test-deploy: setup-test peers   ## manifests and chart at a real API server, the image's steps by hand (root)
	$(PYTEST) tests/deploy $(ARGS)

test-backends: setup-test   ## the queries of docs/questions.md in a real Loki and a real Prometheus (root)
	@scripts/peers.sh otelcol kube-apiserver etcd loki prometheus
	$(PYTEST) tests/backends $(ARGS)

test-kernels: setup-test    ## the agent on Debian's kernels 6.1 and 6.12, in virtual machines without acceleration
	@scripts/setup.sh kernels
	@scripts/kernels.sh
	$(PYTEST) tests/kernels $(ARGS)

test-image: setup-test      ## deploy/Dockerfile carried out by debootstrap and chroot, and run as the DaemonSet says (root)
	@scripts/setup.sh image
	$(PYTEST) tests/image $(ARGS)

peers:          ## the real peers that the tests talk to: collector, Kubernetes' API server, helm; minutes, once
	@scripts/peers.sh

wheel: setup-test           ## dist/*.whl with the objects of all architectures
	$(VENV)/bin/pip wheel -q --disable-pip-version-check --no-deps -w dist .

clean:          ## everything that was made here; the peers' cache stays
	rm -rf $(VENV) dist build otelbpf/probes/objects .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -r {} +
