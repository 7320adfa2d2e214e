# The two commands: `make demo` and `make test`. Each sets up all that it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h')
RACES := $(shell find tests/races -name '*.cpp' -o -name '*.h')

# Our own code compiles without a warning (setup.py says why only here).
export TORCH_TRULY_SPARSE_WERROR = 1

.PHONY: demo test sanitize races newest aarch64 wheel wheel-test lint types build torch-sparse clean

demo: build  ## Train on generated microarray-like data: truly sparse, dense, two-phase
	$(BIN)/python examples/microarray.py

test: build  ## Run every test
	$(BIN)/python -m pytest

# A copy of the package with operators of its own, which the usual ones do not notice. Python is not
# instrumented, so the sanitizers are loaded before it, and libstdc++ with them: they intercept its
# exceptions. What leaks is Python's own. An operator may ask for absurdly much, and says so.
SANITIZED_TESTS ?= operator_laws laws_can_fail products selection topology_operators \
	hostile_content random_topology
SANITIZED := build/sanitized
CXX ?= g++
PRELOADED = $(foreach name,asan ubsan stdc++,$(shell $(CXX) -print-file-name=lib$(name).so))
ASAN := detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192

sanitize: build  ## Run the tests of the operators under AddressSanitizer and UBSan: a few minutes
	rm -rf $(SANITIZED)
	mkdir -p $(SANITIZED)
	cp -r torch_truly_sparse tests csrc examples pyproject.toml setup.py setup.cfg README.md LICENSE \
		$(SANITIZED)
	rm -f $(SANITIZED)/torch_truly_sparse/*.so
	cd $(SANITIZED) && TORCH_TRULY_SPARSE_SANITIZE=1 $(abspath $(BIN))/python setup.py --quiet \
		build_ext --inplace
	cd $(SANITIZED) && LD_PRELOAD="$(PRELOADED)" ASAN_OPTIONS=$(ASAN) \
		UBSAN_OPTIONS=print_stacktrace=1 $(abspath $(BIN))/python -m pytest -x \
		-p no:cacheprovider $(SANITIZED_TESTS:%=tests/test_%.py)

# The kernels and the division of their work, with std::thread in place of torch's threads: OpenMP
# is not built for ThreadSanitizer, which takes its barriers for races. Needs neither Python nor torch.
races: build/races  ## Run the products on several threads under ThreadSanitizer: two minutes
	TSAN_OPTIONS=halt_on_error=1 build/races

build/races: $(SOURCES) $(RACES)
	mkdir -p build
	$(CXX) -std=c++17 -O1 -g -Wall -Wextra -Wno-psabi -fsanitize=thread -isystem tests/races \
		-o $@ tests/races/races.cpp csrc/kernels/*.cpp -pthread

# A copy with an environment of its own, in which nothing is pinned. A warning that only the newest
# release gives fails its test, as everywhere: it says what will have to be changed.
NEWEST := build/newest
newest:  ## Run the tests with the newest torch of PyPI: downloads gigabytes
	rm -rf $(NEWEST)
	mkdir -p $(NEWEST)
	git ls-files -z | xargs -0 cp --parents -t $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)/.venv
	$(NEWEST)/.venv/bin/python -m pip install --quiet --upgrade torch setuptools wheel
	cd $(NEWEST) && .venv/bin/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	cd $(NEWEST) && .venv/bin/python -c 'import torch; print("torch", torch.__version__)'
	cd $(NEWEST) && .venv/bin/python -m pytest

# Compiled, not run: docs/development.md says how the laws of the operators run under emulation. The
# package ziglang is a Clang that brings the headers of other machines.
AARCH64 = $(abspath $(BIN))/python -m ziglang c++ -target aarch64-linux-gnu.2.28 -std=c++17 -O2 -fwrapv \
	-fPIC -fvisibility=hidden -fno-math-errno -Wall -Wextra -Wno-psabi -Werror \
	-DTORCH_TARGET_VERSION=0x020A000000000000 \
	$(foreach part,include include/torch/csrc/api/include,-isystem $(TORCH)/$(part))
TORCH = $(shell $(BIN)/python -c 'import torch; print(*torch.__path__)')

aarch64: build  ## Compile the operators for 64-bit Arm (NEON) with Clang: a minute
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ziglang
	mkdir -p build/aarch64
	printf '%s\n' csrc/bindings/*.cpp csrc/kernels/*.cpp | ZIG_GLOBAL_CACHE_DIR=build/zig ZIG_LOCAL_CACHE_DIR=build/zig \
		xargs -P 2 -I FILE sh -c '$(AARCH64) -c FILE -o build/aarch64/$$(echo FILE | tr / _).o'

# The wheel is made of the source distribution, so that this one is known to build. Its operators are
# compiled for the C and C++ libraries of 2018 (csrc/manylinux); auditwheel reads from the file which
# Linux it can be loaded on, and must find glibc 2.28 or an older one.
wheel: build  ## Make dist/: a wheel that needs no compiler, and the source distribution
	$(BIN)/python -m pip install --quiet --constraint constraints.txt auditwheel build twine
	rm -rf dist
	TORCH_TRULY_SPARSE_MANYLINUX=1 $(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/auditwheel show dist/*.whl | tr '\n' ' ' | \
		grep -oE 'constrains the platform tag to "manylinux_2_(1[0-9]|2[0-8])_[a-z0-9_]+"'
	$(BIN)/twine check --strict dist/*

# In a copy of the tree that has the wheel's package in the place of its own, without a compiler.
# Inductor and AOTInductor compile: their tests skip there.
INSTALLED := build/wheel
WHEEL_TESTS ?= tests torch_truly_sparse
wheel-test: wheel  ## Run the tests with the wheel that `make wheel` made, without a compiler
	rm -rf $(INSTALLED)
	mkdir -p $(INSTALLED)
	git ls-files -z | grep -zv ^torch_truly_sparse/ | xargs -0 cp --parents -t $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --target $(INSTALLED) dist/*.whl
	cd $(INSTALLED) && PATH=$(abspath $(BIN)) CC=false CXX=false $(abspath $(BIN))/python -m pytest \
		-p no:cacheprovider $(WHEEL_TESTS)

lint: build  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(SOURCES) $(RACES)

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
