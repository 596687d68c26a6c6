# One Makefile for people and CI alike. `make demo` and `make test` need nothing but python3 (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
# Processes that run tests side by side.
TESTERS ?= 2
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
SIDE_BY_SIDE := -n $(TESTERS) --dist loadgroup --no-loadscope-reorder
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test test-all test-gpu test-versions lint types style imports docs format lab-tools slurm-tools browser bench soak clean

demo: $(VENV)/.jobs
	$(BIN)/distrib run jobs/digits.yaml

test: lint lab-tools slurm-tools browser
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests

test-all: lint lab-tools slurm-tools browser
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests -m "long or not long"

# What runs on a GPU; where there is none, each test says so.
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest tests -m gpu -rs

# The suite with other versions of Python, torch and Ray, each in an environment of its own: gigabytes and hours.
# `make test-versions ONLY=torch=2.14` tries one of them, TESTS=tests/compat runs a part of the suite.
test-versions: $(VENV)/.dev
	$(BIN)/python -m tests.versions --testers $(TESTERS) $(if $(ONLY),--only $(ONLY)) $(if $(TESTS),--tests $(TESTS))

# mypy takes as long as all others together, so it runs beside them.
lint: $(VENV)/.dev
	$(MAKE) --no-print-directory --output-sync --jobs 2 types style imports docs

types: $(VENV)/.dev
	$(BIN)/mypy

style: $(VENV)/.dev
	$(BIN)/ruff check distrib jobs cluster tests tools
	$(BIN)/ruff format --check distrib jobs cluster tests tools

imports: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

# The documentation as a site in build/site; a broken link is an error.
docs: $(VENV)/.dev
	$(BIN)/python tools/generate_reference.py
	$(BIN)/zensical build --clean --strict

format: $(VENV)/.dev
	$(BIN)/ruff check --fix distrib jobs cluster tests tools
	$(BIN)/ruff format distrib jobs cluster tests tools

# What cluster/lab needs; where it cannot be had, its tests are skipped and say why.
lab-tools:
	@command -v ip >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && apt-get update -qq && apt-get install -qq -y iproute2 >/dev/null; } || true

# The browser in which reports are tested; where it cannot be installed, those tests are skipped and say why.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium >/dev/null; } || true

# A Slurm for its tests in the lab, which are skipped and say why where it cannot be installed.
# Only where no service manager would start it.
slurm-tools:
	@command -v slurmctld >/dev/null || { [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get >/dev/null \
	    && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
	    --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null; } || true

bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench

soak: $(VENV)/.dev
	$(BIN)/python -m tests.recovery.soak 200

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.jobs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[jobs]'
	$(BIN)/python -m compileall -q distrib
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	$(BIN)/python -m compileall -q distrib
	@touch $@ $(VENV)/.jobs

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) accelerate lightning
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
