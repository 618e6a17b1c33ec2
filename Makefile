# One command a chore. Any of them sets up .venv first; all it needs is Python >= 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SETUP := .venv/.set-up

.PHONY: help setup train test test-faults check format bench build clean

help:
	@echo "make train | test | test-faults | check | format | bench | build | clean"

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("bunryu needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(SETUP)

train: $(SETUP)  ## the default job: a tiny BERT on the sample corpus
	$(BIN)/bunryu train

test: $(SETUP)
	$(BIN)/python -m pytest

test-faults: $(SETUP)  ## kills at every batch
	$(BIN)/python -m pytest -m full

check: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(SETUP)
	$(BIN)/python benchmarks

build: $(SETUP)
	$(BIN)/python -m hatchling build

clean:
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
