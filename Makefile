# The two commands: `make demo` and `make test`. Each sets up all that it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h')

# Our own code compiles without a warning (setup.py says why only here).
export TORCH_TRULY_SPARSE_WERROR = 1

.PHONY: demo test lint types build torch-sparse clean

demo: build  ## Train on generated microarray-like data: truly sparse, masked dense, dense, two-phase
	$(BIN)/python examples/microarray.py

test: build  ## Run every test
	$(BIN)/python -m pytest

lint: build  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: build  ## Check types
	$(BIN)/mypy

build: $(READY)  ## Make the environment and compile the operators

torch-sparse: build  ## Compile torch-sparse, a partner for exchange: 13 minutes, kept by pip
	$(BIN)/python -c 'import torch_sparse' 2>/dev/null || $(BIN)/python -m pip install \
		--constraint constraints.txt --no-build-isolation torch_scatter==2.1.2 torch_sparse==0.6.18

# torch comes first: the operators compile against it, without an isolated build environment.
$(READY): pyproject.toml setup.cfg setup.py constraints.txt $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel torch
	@echo "compiling the operators: under a minute on two cores"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--editable '.[dev]'
	touch $(READY)

clean:  ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info torch_truly_sparse/*.so torch_truly_sparse/*.dylib
