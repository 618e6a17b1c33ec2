# One command a chore. Any of them sets up .venv first; all it needs is Python >= 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SETUP := .venv/.set-up
TPU := .venv-tpu/bin
TPU_SETUP := .venv-tpu/.set-up

.PHONY: help setup train test test-faults test-cpus test-tpu check format bench build clean

help:
	@echo "make train | test | test-faults | test-cpus | test-tpu | check | format | bench | build | clean"

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("bunryu needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(SETUP)

train: $(SETUP)  ## the default job: a tiny BERT on the sample corpus
	$(BIN)/bunryu train

test: $(SETUP)
	$(BIN)/python -m pytest -n 2

test-faults: $(SETUP)  ## kills at every batch
	$(BIN)/python -m pytest -n 2 -m full

# What asserts bits and logits, once more with other processors' kernels: an Intel one's without AVX-512; those
# that MKL takes on AMD's for the product of a matrix and a vector, whose bits depend on addresses; the oldest.
CPUS := $(BIN)/python -m pytest -n 2 -m 'cpus and not full'
test-cpus: $(SETUP)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(CPUS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(CPUS)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(CPUS)

# torch_xla fits one version of PyTorch alone: an environment of its own, of 8 GB
$(TPU_SETUP): pyproject.toml constraints-tpu.txt
	$(PYTHON) -m venv .venv-tpu
	$(TPU)/pip install --quiet --disable-pip-version-check -c constraints-tpu.txt -e . pytest torch_xla
	touch $(TPU_SETUP)

test-tpu: $(TPU_SETUP)  ## the TPU way, on this machine's processor
	$(TPU)/python -m pytest -m tpu tests/training/test_tpu.py
	$(TPU)/python -m pytest -m tpu tests/training/test_tpu_chips.py

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
	rm -rf .venv .venv-tpu dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
