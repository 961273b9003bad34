# Every command a developer or a new hospital needs; `make` alone lists them.
# Data sets and seeds are given as variables: make demo DATA=../images SEED=3

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := semc client server simulation
# Two workers overlap waiting for processes (end to end) with computing; more would only queue for cores.
WORKERS ?= 2

# No program of this project reports home, looks for updates, or lets a proxy see the loopback.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE := 1
export NO_PROXY := 127.0.0.1,localhost
export no_proxy := 127.0.0.1,localhost
# Several sites share the cores of one machine; a site file's `threads` overrules this.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test test-slow privacy-audit faults lint format bench images rehearse clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamp holds what was installed and where: a changed pin, a changed pyproject or a moved checkout
# installs again; anything else, a fresh clone's file times included, does not.
setup: ## Create .venv with the pinned versions (does nothing when they are there)
	@test "$$(cat $(VENV)/.installed 2>/dev/null)" = "$$(cat requirements.lock pyproject.toml | cksum) $(CURDIR)" \
	|| $(MAKE) --no-print-directory $(VENV)/.installed

.PHONY: $(VENV)/.installed
$(VENV)/.installed:
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11) else \
	f"error: Python 3.11 or newer is needed and $(PYTHON) is {v}. Fix: make setup PYTHON=python3.11")'
	@echo "Installing the pinned versions into $(VENV) (once; a few minutes, about 7 GB with CUDA)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@echo "$$(cat requirements.lock pyproject.toml | cksum) $(CURDIR)" > $@

lock: ## Write requirements.lock anew from what .venv holds
	$(BIN)/python -m pip check
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip \
	| LC_ALL=C sort -f > requirements.lock.new
	mv requirements.lock.new requirements.lock

demo: setup ## Train SEMC across three phantom hospitals on this machine (DATA=folder, SEED=n)
	$(BIN)/semc-sim demo $(if $(DATA),--data $(DATA)) $(if $(SEED),--seed $(SEED)) --out runs/demo

test: lint ## Lint, then every quick test, with the line coverage of semc/
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	-m "not slow and not bench and not audit and not faults" \
	--cov=semc --cov-report=term:skip-covered --cov-fail-under=90

test-slow: setup ## Tests that take long (a killed round loop, a SuperNode killed and rejoining)
	$(BIN)/python -m pytest -m "slow and not bench and not faults"

privacy-audit: setup ## Attack patient-level privacy and its ledger at full size; writes runs/privacy-audit
	PRIVACY_AUDIT=runs/privacy-audit $(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not bench and not faults" \
	tests/attacks tests/semc/privacy tests/client

# QUICK=1 is what `make test` runs of it. Random schedules: SCHEDULES=n against the programs (default 40), FROM=seed goes
# on from there; FORKED=n at any instant among forked processes (default 200).
faults: setup ## Kill, cut off and starve real processes; writes runs/faults (QUICK=1, SCHEDULES=n, FROM=seed, FORKED=n)
	FAULTS=runs/faults $(if $(SCHEDULES),FAULT_SCHEDULES=$(SCHEDULES)) $(if $(FROM),FAULT_FROM=$(FROM)) \
	$(if $(FORKED),FORKED_SCHEDULES=$(FORKED)) \
	$(BIN)/python -m pytest -n $(WORKERS) $(if $(QUICK),--dist loadfile -m "not faults") tests/faults

lint: setup ## Style, types, import arrows, spelling
	$(BIN)/ruff check $(CODE) tests docker
	$(BIN)/ruff format --check $(CODE) tests docker
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell $(CODE) tests docker Makefile pyproject.toml $(wildcard *.md)

format: setup ## Rewrite the code in the house style
	$(BIN)/ruff check --fix $(CODE) tests docker
	$(BIN)/ruff format $(CODE) tests docker

bench: setup ## Measure speed and memory (never a gate)
	$(BIN)/python -m pytest -s -m bench tests/benchmarks

images: ## Build the server and client images (docker, or buildah without an engine)
	docker/rehearse.sh images

rehearse: ## Build the images and run a coordinator and three hospitals from them
	docker/rehearse.sh

clean: ## Remove caches and results; .venv and data stay
	rm -rf build dist runs htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) tests -name __pycache__ -type d -prune -exec rm -rf {} +
