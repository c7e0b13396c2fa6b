# make demo | test | lint | format | bench | gpu | crosscompile | wheel | clean. Needs git, make and Python 3.11 or newer; a
# compiler, CMake, FFmpeg and a GPU are not needed. Everything is installed into .venv beside this file, from a CPU build of
# torch:
#   TORCH_VERSION  the torch that every pip call is held to
#   TORCH_INDEX    where its CPU builds come from; empty: pip's own configuration alone
#   EXTRAS         what the tests have beside the core: dev, or more, as `make test EXTRAS=dev,dali,ray`; tests of an extra
#                  that is not installed are skipped and listed
PYTHON ?= python3
TORCH_VERSION ?= 2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
JOBS ?= $(shell $(PYTHON) -c 'import os; print(min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')
OUT ?= demo-out
RESULTS ?= benchmarks/results/local
PYTEST_ARGS ?=
EXTRAS ?= dev

VENV := .venv
IN_VENV := $(VENV)/bin/python
# One stamp for each set of packages: a second `make test` installs nothing. A change of the metadata or of torch's version
# makes a new one.
DEMO_STAMP := $(VENV)/.installed-demo-torch-$(TORCH_VERSION)
comma := ,
DEV_STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))-torch-$(TORCH_VERSION)
TORCH_STAMP := $(VENV)/.installed-torch-$(TORCH_VERSION)
CONSTRAINTS := $(VENV)/constraints.txt
METADATA := setup.py pyproject.toml scalefast/_version.py

.PHONY: help demo test bench gpu crosscompile lint format wheel torch clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo     render a small set of videos, extract, pretrain, evaluate, report (about 5 minutes on 2 cores)'
	@echo 'make test     run the tests'
	@echo 'make lint     ruff and mypy;  make format: ruff, writing'
	@echo 'make bench    run the benchmarks on this machine;  make gpu RESULTS=folder: GPU tests and benchmarks'
	@echo 'make crosscompile  compile every GPU kernel that ships, for four GPUs on three releases of Triton; no GPU needed'
	@echo 'make wheel    build dist/*.whl;  make clean: remove .venv and everything built'

demo: $(DEMO_STAMP)
	$(IN_VENV) examples/pretrain_k400.py --out $(OUT)

# One torch thread a process: the processes share the cores, and results do not depend on how many there are.
test: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(IN_VENV) -P -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

bench: $(DEV_STAMP)
	$(IN_VENV) -P -m pytest benchmarks --benchmark-only $(PYTEST_ARGS)

# With the machine's own python3 and its CUDA build of torch, nothing installed and nothing fetched; the steps are in .ci/gpu.py.
gpu:
	'$(PYTHON)' .ci/gpu.py '$(RESULTS)'

# Each release of Triton in a folder of its own, in front of the one that the tests use.
TRITON_VERSIONS ?= 3.6.0 3.7.0 3.9.0
ARCHS ?= sm_80 sm_90 sm_100 gfx942
crosscompile: $(DEV_STAMP) $(TRITON_VERSIONS:%=$(VENV)/triton-%)
	@status=0; for version in $(TRITON_VERSIONS); do \
	  PYTHONPATH="$(CURDIR)/$(VENV)/triton-$$version" TRITON_CACHE_DIR="$(CURDIR)/$(VENV)/cache-$$version" \
	    $(IN_VENV) -P -m scalefast.kernels.crosscompile --arch $(ARCHS) || status=1; \
	done; exit $$status

$(VENV)/triton-%: $(DEV_STAMP)
	$(IN_VENV) -m pip install --quiet --no-deps --constraint $(CONSTRAINTS) --target $@.part 'triton==$*'
	@mv $@.part $@

lint: $(DEV_STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(DEV_STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# From nothing each time: what an earlier build left under build/ would get into the wheel.
wheel: $(DEV_STAMP)
	rm -rf build dist
	$(IN_VENV) -m pip wheel --no-deps --no-build-isolation --constraint $(CONSTRAINTS) --wheel-dir dist .

# Torch alone in a fresh environment: make torch VENV=folder
torch: $(TORCH_STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(DEMO_STAMP): $(TORCH_STAMP) $(METADATA)
	$(IN_VENV) -m pip install --constraint $(CONSTRAINTS) -e '.[all]'
	@touch $@

$(DEV_STAMP): $(TORCH_STAMP) $(METADATA)
	$(IN_VENV) -m pip install --constraint $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	@touch $@

$(TORCH_STAMP): | $(IN_VENV)
	@rm -f $(VENV)/.installed-*
	PYTHON='$(IN_VENV)' .ci/install-torch '$(TORCH_VERSION)' '$(TORCH_INDEX)' '$(CONSTRAINTS)'
	@touch $@

$(IN_VENV):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"error: Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo 'error: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv' >&2; rm -rf $(VENV); exit 1; }
