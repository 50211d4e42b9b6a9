# train · test · fuzz · bench · gpu-check · check · format: each sets up what it needs, the second call starts at once.
PYTHON ?= python3
SEED   ?= $(shell date +%s)
VENV   := .venv
PY     := $(VENV)/bin/python
NATIVE := setup.py pyproject.toml $(wildcard csrc/*/*)
CXX_FILES = $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)

.PHONY: train test fuzz bench gpu-check check format clean
.DEFAULT_GOAL := test

train: $(VENV)/.train        ## WGAN-GP digits on MNIST; at most 4.75 minutes of training, on two cores
	$(PY) examples/train_mnist.py --method wgan-gp --time-limit 4.75

test: $(VENV)/.dev check     ## every claim checked
	$(PY) -m pytest

fuzz: $(VENV)/.dev           ## 10,000 random critics per property; repeat one with SEED=…
	$(PY) -m pytest -k "critic or penalt" --hypothesis-profile=fuzz --hypothesis-seed=$(SEED) \
		python_tests/test_second_order.py python_tests/test_penalty.py

bench: $(VENV)/.dev          ## every benchmark, quickly
	$(PY) -m benchmarks run

check: $(VENV)/.dev          ## style; never writes
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

format: $(VENV)/.dev         ## style; rewrites
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CXX_FILES)

gpu-check:                   ## on a machine with a GPU and torch: builds in place, runs the suite; installs nothing
	$(PYTHON) setup.py build_ext --inplace
	$(PYTHON) -m pytest

clean:
	rm -rf $(VENV) build dist *.egg-info wgan_kernels/*.so

# --- set-up: one environment, two depths -------------------------------------------------------------------------
$(VENV)/.torch: pyproject.toml
	@echo "== set-up 1/2: PyTorch into $(VENV) (once; a few GB, a minute or two)"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check torch torchvision "setuptools>=77" wheel ninja
	@touch $@

$(VENV)/.train: $(VENV)/.torch $(NATIVE)
	@echo "== set-up 2/2: wgan_kernels with its compiled part, for training"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(NATIVE)
	@echo "== set-up 2/2: wgan_kernels with its compiled part, for tests, benchmarks and style"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[dev]"
	@touch $@ $(VENV)/.train
