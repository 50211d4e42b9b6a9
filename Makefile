# train · gallery · test · endurance · fuzz · bench · gpu-check · wheel · wheel-check · check · format: each sets up once.
PYTHON ?= python3
SEED   ?= $(shell date +%s)
VENV   := .venv
PY     := $(VENV)/bin/python
TORCH  ?= 2.13.0
WHEEL_CHECK := build/wheel-check
# Tests of the source tree, of its benchmarks and of training: not for an installed wheel, or in need of torchvision.
NOT_OF_THE_WHEEL := benchmarks_* build cuda_code cuda_on_host equal_minutes examples gallery* gpu_check imports layout philox sample train train_mnist training_* wheel
NATIVE := setup.py pyproject.toml $(wildcard csrc/*/*)
CXX_FILES = $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)

.PHONY: train gallery test endurance fuzz bench gpu-check wheel wheel-check check format clean
.DEFAULT_GOAL := test

train: $(VENV)/.train        ## WGAN-GP digits on MNIST; at most 4.75 minutes of training, on two cores
	$(PY) examples/train_mnist.py --method wgan-gp --time-limit 4.75

gallery: $(VENV)/.dev        ## the documents' experiments, into docs/gallery.md; a quarter of an hour
	$(PY) examples/gallery.py

test: $(VENV)/.dev check     ## every claim checked, file by file on two workers
	$(PY) -m pytest -n 2 --dist loadfile

endurance: $(VENV)/.dev      ## 50 kills of a training run, each resumed; 5,000 steps in flat memory
	rm -rf build/endurance && mkdir -p build/endurance
	OMP_NUM_THREADS=1 PYTHONPATH=. $(PY) python_tests/kills.py build/endurance 50 $(SEED)
	OMP_NUM_THREADS=1 PYTHONPATH=. $(PY) python_tests/memory.py build/endurance 5000

fuzz: $(VENV)/.dev           ## 10,000 random critics per property; repeat one with SEED=…
	$(PY) -m pytest -k "critic or penalt" --hypothesis-profile=fuzz --hypothesis-seed=$(SEED) \
		python_tests/test_second_order.py python_tests/test_penalty.py python_tests/test_penalty_program.py \
		python_tests/test_penalty_labels.py python_tests/test_penalty_states.py python_tests/test_critic_step_programs.py \
		python_tests/test_conditional_steps.py

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

gpu-check:                   ## on a machine with a GPU and torch: builds in place, tests, sanitizes, times; installs nothing
	$(PYTHON) python_tests/gpu_check.py

wheel: $(VENV)/.dev          ## the sdist, and from it the wheel for CPUs, audited; both into dist/
	rm -rf dist build/wheel
	WGAN_KERNELS_BUILD=cpu $(PY) -m build --no-isolation --outdir build/wheel
	PATH="$(abspath $(VENV))/bin:$$PATH" auditwheel repair --strip --exclude 'libtorch*.so' --exclude libc10.so \
		--wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(VENV)/bin/abi3audit --strict --summary dist/*.whl
	ls -l dist

wheel-check: wheel           ## that wheel in a fresh environment: PYTHON=… with TORCH=…; tests of the ops, and their times
	$(PYTHON) -m venv --clear $(WHEEL_CHECK)
	$(WHEEL_CHECK)/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH) pytest hypothesis \
		"$$(echo dist/*.whl)[bench]"
	mkdir $(WHEEL_CHECK)/run
	cp -r python_tests benchmarks pyproject.toml $(WHEEL_CHECK)/run
	cd $(WHEEL_CHECK)/run && ../bin/python -c "import sys, torch, wgan_kernels as wk; table = wk.backends(); \
		print('Python', sys.version, 'torch', torch.__version__, wk.__file__, table); \
		assert wk.__file__.startswith(sys.prefix) and {table[key].chosen for key in table if 'cpu' in key} == {'cpp'}"
	cd $(WHEEL_CHECK)/run && ../bin/python -m pytest $(NOT_OF_THE_WHEEL:%=--ignore-glob='*/test_%.py')
	cd $(WHEEL_CHECK)/run && ../bin/python -m benchmarks run clip/1000x4 'interpolate/64x*'

clean:
	rm -rf $(VENV) build dist *.egg-info wgan_kernels/*.so

# --- set-up: one environment, two depths -------------------------------------------------------------------------
$(VENV)/.torch: pyproject.toml
	@echo "== set-up 1/2: PyTorch into $(VENV) (once; a few GB, a minute or two)"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check torch torchvision "setuptools>=77" wheel ninja
	@touch $@

$(VENV)/.train: $(VENV)/.torch $(NATIVE)
	@echo "== set-up 2/2: wgan_kernels with its compiled part, for training; kernels for CUDA where there is a GPU"
	$(if $(shell command -v nvidia-smi),,WGAN_KERNELS_BUILD=cpu) $(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(NATIVE)
	@echo "== set-up 2/2: wgan_kernels with its compiled part, for tests, benchmarks and style"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[dev]"
	@touch $@ $(VENV)/.train
