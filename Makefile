# make demo     build, train ENet with and without self attention distillation, write a report to open in a browser
# make test     the tests, Python and C++
# make lint     ruff, clang-format, mypy          make format    let ruff and clang-format rewrite the files
# make bench    the benchmarks                    make fuzz      wrong arguments for ten minutes: errors, never a crash
# make mutate   listed mistakes in the formulas, one by one: each must fail the test that is named for it
# make docs     the manual, into build/docs       make wheel     dist/: sources and a wheel of them, checked
# make test-hosts, make test-torch-versions       in environments of their own (several GB for the second)
# make kernels ARCHITECTURES=90   registers, shared memory and spills of each kernel; "release" for all architectures
# make gpu-check STAGE=build|test|sanitize|bench|reproduce       one part each of GPU_CHECK, on a machine with a GPU
#
# Everything runs in VENV, made with PYTHON when needed. `VENV=` (empty) uses PYTHON as it is, for a machine without
# a network: it must then have torch, the build requirements and the tools that a verb calls.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
JOBS ?= $(shell nproc)
STAGE ?= build
DIST ?= dist
GPU_CHECK ?= build/gpu-check.json
ARCHITECTURES ?= 90
ARGS ?=
# numbers alone are asked of nuScenes' evaluator, which works with NumPy 2 but would not be installed with it
DEVKIT := nuscenes-devkit==1.2.0 pyquaternion cachetools
HOSTS := mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0 'setuptools<81' transformers

BUILD_REQUIRES := setuptools>=77 pybind11>=3.0 cmake>=3.25 ninja apache-tvm-ffi>=0.1.6
SOURCES := CMakeLists.txt setup.py pyproject.toml $(shell find csrc -type f)
CPP := $(shell find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

ifeq ($(VENV),)
RUN := $(PYTHON)
READY := build/installed
else
TOOLS := $(VENV)/ready-dev
RUN := $(VENV)/bin/python
READY := $(VENV)/ready
export PATH := $(abspath $(VENV))/bin:$(PATH)
endif

.PHONY: demo test bench lint format docs wheel fuzz mutate test-hosts hosts-here test-torch-versions kernels gpu-check clean

demo: $(READY)-train
	$(RUN) -m pydistill demo $(ARGS)

test: $(READY)-dev
	$(RUN) -m pytest -n $(JOBS) --dist loadgroup $(ARGS)
	cmake -S tests/cpp -B build/tests -G Ninja -DPython_EXECUTABLE=$$($(RUN) -c 'import sys; print(sys.executable)')
	cmake --build build/tests --parallel $(JOBS)
	ctest --test-dir build/tests --output-on-failure --parallel $(JOBS)

bench: $(READY)-dev
	$(RUN) -m pytest -q pydistill/benchmarks --benchmark-json=build/benchmarks.json $(ARGS)
	$(RUN) -m pydistill.benchmarks.summary build/benchmarks.json

lint: $(TOOLS)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	clang-format --dry-run -Werror $(CPP)
	$(RUN) -m mypy

format: $(TOOLS)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	clang-format -i $(CPP)

docs: $(TOOLS)
	$(RUN) -m sphinx -W --keep-going -b html docs build/docs

# The wheel is built from the unpacked source distribution, without a network where the system can take it away.
wheel: $(READY)-build
	rm -rf $(DIST) build/wheel
	$$(unshare -rn true 2>/dev/null && echo unshare -rn) $(RUN) -m build --no-isolation --outdir build/wheel $(if $(VENV),,--skip-dependency-check)
	$(RUN) -m auditwheel repair --patcher none --exclude libgomp.so.1 --wheel-dir $(DIST) build/wheel/*.whl
	mv build/wheel/*.tar.gz $(DIST)
	$(RUN) tools/check_sdist.py $(DIST)/*.tar.gz
	$(RUN) tools/check_wheel.py $(if $(findstring PYDISTILL_RELEASE=ON,$(CMAKE_ARGS)),--release) $(ARGS) $(DIST)/*.whl

fuzz: $(READY)-dev
	$(RUN) tools/fuzz.py $(ARGS)

mutate: $(READY)-dev
	$(RUN) tools/mutate.py $(ARGS)

test-hosts:
	$(MAKE) VENV=.venv-hosts hosts-here

hosts-here: $(if $(VENV),$(READY)-hosts,$(READY)-dev)
	$(RUN) -m pytest tests/hosts $(ARGS)

test-torch-versions:
	$(PYTHON) tools/test_torch_versions.py $(ARGS)

kernels: $(READY)-torch
	$(RUN) tools/kernels.py --architectures '$(ARCHITECTURES)' --jobs $(JOBS) $(ARGS)

gpu-check: $(READY)-torch
	$(RUN) tools/gpu_check.py $(STAGE) --out $(GPU_CHECK) $(if $(VENV),,--offline) $(ARGS)

clean:
	rm -rf build dist pydistill/_cpu_*.so pydistill/_cuda*.so

ifeq ($(VENV),)
$(READY)-torch $(READY)-build:
	mkdir -p $(@D) && touch $@

$(READY)-train $(READY)-dev: $(SOURCES)
	$(RUN) -m pip install --no-build-isolation --no-deps -e .
	mkdir -p $(@D) && touch $(READY)-train $(READY)-dev
else
# torch first and pinned: a plain `pip install torch` may bring another build with gigabytes of CUDA packages.
$(READY)-torch:
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install $(TORCH) numpy $(foreach r,$(BUILD_REQUIRES),'$r')
	touch $@

$(READY)-build: $(READY)-torch
	$(RUN) -m pip install build auditwheel
	touch $@

$(READY)-train: $(READY)-torch $(SOURCES)
	$(RUN) -m pip install --no-build-isolation $(TORCH) -e '.[train]'
	touch $@

$(READY)-dev: $(READY)-torch $(SOURCES)
	$(RUN) -m pip install --no-build-isolation $(TORCH) -e '.[train,dev]'
	touch $(READY)-train $@

# mmcv asks for the OpenCV that opens windows, whose import fails where libGL is missing.
$(READY)-hosts: $(READY)-dev
	$(RUN) -m pip install $(TORCH) $(HOSTS)
	$(RUN) -m pip install --no-deps $(DEVKIT)
	$(RUN) -m pip uninstall -y opencv-python
	$(RUN) -m pip install --force-reinstall --no-deps opencv-python-headless
	touch $@
endif
