# One Makefile for people and CI alike. `make demo` and `make test` need nothing but python3 (3.11 or newer).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: demo test lint format bench soak clean

demo: $(VENV)/.jobs
	$(BIN)/distrib run jobs/digits.yaml

test: lint
	$(BIN)/python -m pytest tests

lint: $(VENV)/.dev
	$(BIN)/ruff check distrib jobs tests
	$(BIN)/ruff format --check distrib jobs tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix distrib jobs tests
	$(BIN)/ruff format distrib jobs tests

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
