# Every target does its own set-up: `make demo` and `make test` are all a newcomer needs.

# The first Python that runs and is new enough: a name on PATH alone proves nothing (pyenv's shims).
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
  { command -v $$python; break; }; done)
VENV := .venv
READY := $(VENV)/.ready
DIST := dist
PIP := $(VENV)/bin/pip --quiet --disable-pip-version-check
ARGS ?=
# Processes that run tests, each with a Slurm of its own: most tests wait more than they compute.
WORKERS ?= 3

.PHONY: help setup demo test versions slurm-versions machines check format lint types spelling docs screenshots lock bench bench-full soak chaos chaos-full defences storage-suites docker-demo docker-test sbom audit dist clean

help:
	@echo "make demo         run the whole thing once on this machine (ARGS=\"--once --json\")"
	@echo "make test         all tests; real Slurm is used where it can be had"
	@echo "make versions     user code on each supported release of Dagster, all at once"
	@echo "make slurm-versions  tests/slurm on Slurm 22.05, 24.11 and 26.05 (root, Debian)"
	@echo "make machines     README, tutorial and services on a bare Debian that its systemd boots (root)"
	@echo "make check        formatting, lint, types, spelling, docs, vulnerabilities, tests: what CI runs"
	@echo "make docs         the documentation as a site, in docs/_build/html; a warning is an error"
	@echo "make bench        speed and cost, beside stock agent, bare Slurm and others (ARGS=\"--part peers\")"
	@echo "make bench-full   the same with 10,000 jobs, 1,000 tasks and the rate limit: hours"
	@echo "make soak         a quarter of an hour of connections against relay, gateway and node program"
	@echo "make chaos        faults injected into a whole Dagster on Slurm, in short"
	@echo "make chaos-full   all faults, over 1,000 runs, stock agent beside: writes docs/reliability.md"
	@echo "make defences     each defence of docs/security.md switched off: its test must fail"
	@echo "make storage-suites  Dagster's own storage tests, on plain storages and through the gateway"
	@echo "make docker-demo  the whole thing in containers, with a run; the UI stays up until Ctrl-C"
	@echo "make docker-test  the end-to-end test in the containers' cluster"
	@echo "make screenshots  the pictures of docs/tour.md anew, by the tests in a browser"
	@echo "make lock         renew requirements*.lock; newer releases with ARGS=--upgrade"
	@echo "make audit        known vulnerabilities of what is locked, where their list can be had"
	@echo "make dist         wheels, sdists, SBOM and SHA256SUMS of the last commit, byte for byte the same anywhere"

setup: $(READY)

$(READY): pyproject.toml requirements-build.lock requirements-dev.lock
	@test -n "$(PYTHON)" || \
	  { echo "hpc-agent needs Python 3.11 or newer with venv; none was found. Set PYTHON=…" >&2; exit 1; }
	@echo "Setting up $(VENV) …" >&2
	@$(PYTHON) -m venv $(VENV)
	@# Nothing comes in whose hash is not in a lock; what builds the packages without a wheel neither.
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements-build.lock >&2
	@$(PIP) install --require-hashes --no-build-isolation --use-pep517 \
	  --requirement requirements-dev.lock >&2
	@$(PIP) install --no-index --no-deps --no-build-isolation --use-pep517 --editable . \
	  --editable ./dagster_hpc >&2
	@$(PIP) check >&2
	@touch $@

demo: $(READY)
	@$(VENV)/bin/hpc-agent demo $(ARGS)

test: $(READY)
	@$(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  $(ARGS)
	@# Without other tests: what it finds must not be that the machine is busy.
	@test -n "$(ARGS)" || $(VENV)/bin/python -m pytest tests/chaos -m chaos --numprocesses $(WORKERS)

versions: $(READY)
	@$(VENV)/bin/python -m pytest tests/versions tests/node/pool/test_releases.py -m "" $(ARGS)

slurm-versions: $(READY)
	@$(VENV)/bin/python -m tests.slurm.matrix $(ARGS)

machines: $(READY)
	@$(VENV)/bin/python -m pytest tests/machines -m machines $(ARGS)

check: $(READY)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint types spelling docs audit
	@$(MAKE) --no-print-directory test

format: $(READY)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(READY)
	$(VENV)/bin/mypy

spelling: $(READY)
	$(VENV)/bin/codespell hpc_agent dagster_hpc tests templates slurm docker docs examples *.md

docs: $(READY)
	@$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet --builder html \
	  --doctree-dir docs/_build/doctrees \
	  docs docs/_build/html
	@echo "docs/_build/html/index.html"

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

defences: $(READY)
	@$(VENV)/bin/python -m tests.security $(ARGS)

storage-suites: $(READY)
	@$(VENV)/bin/python -m tests.storage_suites $(ARGS)

docker-test:
	@docker/test

docker-demo:
	@docker/demo $(ARGS)

# For a site; for this repository, with the same releases of what both have; for building alone.
LOCKED := pyproject.toml --extra control-plane --extra postgres --extra ssh --extra top --extra otel
# With extras, since pip takes `gql[requests]` for another package than the locked `gql`.
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
  --no-header --no-strip-extras --generate-hashes

# Of one run of the tests in a browser, on a real Slurm.
screenshots: $(READY)
	@HPC_AGENT_SCREENSHOTS=docs/images $(VENV)/bin/python -m pytest tests/e2e/test_browser.py $(ARGS)

lock:
	$(VENV)/bin/pip install --quiet uv
	$(COMPILE) $(LOCKED) -o requirements.lock $(ARGS)
	$(COMPILE) $(LOCKED) --extra dev --extra docs --group build -c requirements.lock -o requirements-dev.lock $(ARGS)
	$(COMPILE) --group build -c requirements-dev.lock -o requirements-build.lock $(ARGS)

# Of what a site installs: the tools of this repository are not in it.
sbom: $(READY)
	@mkdir -p "$(DIST)"
	@$(VENV)/bin/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml \
	  --mc-type application --output-reproducible --output-format JSON \
	  --output-file "$(DIST)/dagster-hpc-agent.cdx.json" requirements.lock

audit: $(READY)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m tests.supply_chain.audit requirements.lock

# From what is committed alone, and as of then: hatchling puts that time into both archives.
dist: $(READY)
	@git diff --quiet HEAD || { echo "make dist: commit first, or nobody can build the same" >&2; exit 1; }
	@rm -rf "$(DIST)" && mkdir -p "$(DIST)"
	@source=$$(mktemp -d) && trap 'rm -rf "$$source"' EXIT && \
	git archive HEAD | tar -x -C "$$source" && \
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) && export SOURCE_DATE_EPOCH && \
	dist=$$(cd "$(DIST)" && pwd) && hatchling=$$(cd $(VENV)/bin && pwd)/hatchling && \
	(cd "$$source" && "$$hatchling" build -t wheel -t sdist -d "$$dist" >&2) && \
	(cd "$$source/dagster_hpc" && "$$hatchling" build -t wheel -t sdist -d "$$dist" >&2)
	@$(MAKE) --no-print-directory -f $(MAKEFILE_LIST) -o $(READY) sbom VENV=$(VENV) DIST="$(DIST)"
	@cd "$(DIST)" && sha256sum -- * > SHA256SUMS && cat SHA256SUMS

clean:
	rm -rf $(VENV) build dist docs/_build docs/reference .mypy_cache .pytest_cache .ruff_cache
