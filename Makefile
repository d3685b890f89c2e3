# Every target does its own set-up: `make demo` and `make test` are all a newcomer needs.

# The first Python that runs and is new enough: a name on PATH alone proves nothing (pyenv's shims).
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
  { command -v $$python; break; }; done)
VENV := .venv
READY := $(VENV)/.ready
ARGS ?=
# Processes that run tests, each with a Slurm of its own: most tests wait more than they compute.
WORKERS ?= 2

.PHONY: help setup demo test versions slurm-versions check format lint types spelling lock bench bench-full soak chaos chaos-full docker-test clean

help:
	@echo "make demo         run the whole thing once on this machine (ARGS=\"--once --json\")"
	@echo "make test         all tests; real Slurm is used where it can be had"
	@echo "make versions     user code on each supported release of Dagster, all at once"
	@echo "make slurm-versions  tests/slurm on Slurm 22.05, 24.11 and 26.05 (root, Debian)"
	@echo "make check        formatting, lint, types, spelling, tests: what CI runs"
	@echo "make bench        latencies and memory, measured on this machine"
	@echo "make bench-full   the same with 10,000 jobs and the rate limit: half an hour"
	@echo "make soak         ten minutes of connections against relay, gateway and node program"
	@echo "make chaos        faults injected into a whole Dagster on Slurm, in short"
	@echo "make chaos-full   all faults, over 1,000 runs, stock agent beside: writes docs/reliability.md"
	@echo "make docker-test  the end-to-end test in the containers' cluster"
	@echo "make lock         renew requirements.lock"

setup: $(READY)

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || \
	  { echo "hpc-agent needs Python 3.11 or newer with venv; none was found. Set PYTHON=…" >&2; exit 1; }
	@echo "Setting up $(VENV) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --use-pep517 \
	  --constraint requirements.lock --editable '.[control-plane,postgres,ssh,dev]' >&2
	@touch $@

demo: $(READY)
	@$(VENV)/bin/hpc-agent demo $(ARGS)

test: $(READY)
	@$(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)
	@# Alone: what it finds must not be that the machine is busy with other tests.
	@test -n "$(ARGS)" || $(VENV)/bin/python -m pytest tests/chaos -m chaos

versions: $(READY)
	@$(VENV)/bin/python -m pytest tests/versions -m "" $(ARGS)

slurm-versions: $(READY)
	@$(VENV)/bin/python -m tests.slurm.matrix $(ARGS)

check: lint types spelling test

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(READY)
	$(VENV)/bin/mypy

spelling: $(READY)
	$(VENV)/bin/codespell hpc_agent tests templates slurm docker docs *.md

bench: $(READY)
	@$(VENV)/bin/python -m tests.bench $(ARGS)

bench-full: $(READY)
	@$(VENV)/bin/python -m tests.bench --scale full $(ARGS)

soak: $(READY)
	@$(VENV)/bin/python -m tests.soak $(ARGS)

chaos: $(READY)
	@$(VENV)/bin/python -m tests.chaos $(ARGS)

chaos-full: $(READY)
	@$(VENV)/bin/python -m tests.chaos --full --page docs/reliability.md $(ARGS)

docker-test:
	@docker/test

lock:
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
	  --extra control-plane --extra dev --extra postgres --extra ssh pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
