"""Settings that hold for every test."""

import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads starve the tests' own processes

import torch

if torch.cuda.is_available():  # float32 is compared with float32: cuDNN's default would be 10 bits of mantissa
    torch.backends.cudnn.allow_tf32 = False
else:  # before Triton is imported: its kernels then run in the interpreter
    os.environ["TRITON_INTERPRET"] = "1"

import pytest

try:
    import hypothesis
except ImportError:  # a machine where nothing is installed for make gpu-check: the files that need it say so
    pass
else:
    hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=300)
    hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=10_000, print_blob=True)  # make fuzz
    hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """For networks so small that more threads gain nothing, and lose much where other processes run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def quick_runs(one_thread):
    """Training runs judge few samples, and draw no curves."""
    from wgan_kernels.training import report, run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "EVALUATED", 300)
        patch.setattr("wgan_kernels.training.trainer.SAMPLES", 100)
        patch.setattr(report, "save_curves", lambda *arguments: None)  # a second each; test_train_mnist.py has them
        yield


@pytest.fixture
def example(monkeypatch):
    """name → that script of the examples as a module, on one thread; threads are put back."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module
    torch.set_num_threads(before)


@pytest.fixture
def three_threads():
    """So that work is split on any machine, and unevenly."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def poisoned():
    """Fills every fresh output with NaN, so that an element that a kernel leaves out is seen; not where initcheck is to
    see it (gpu_check.py).
    """
    torch.use_deterministic_algorithms(os.environ.get("UNPOISONED") != "1")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def however_small(monkeypatch):
    """Second-order rules for layers of any size: the critics of the tests are too small to be worth it."""
    for module in ("wgan_kernels.second_order", "wgan_kernels.rules.norm"):
        monkeypatch.setattr(sys.modules[module], "_WORTHWHILE", 0)
    monkeypatch.setattr(sys.modules["wgan_kernels.second_order"], "_worthwhile_if_smooth", lambda *layer: 0)


@pytest.fixture
def vectors(monkeypatch):
    """Kernels that are written for vectors are served on any machine: they run everywhere, only not fast."""
    monkeypatch.setattr(sys.modules["wgan_kernels._dispatch"], "has_vectors", lambda: True)


@pytest.fixture
def pairs(monkeypatch):
    """Products of pairs are served, even where AMX is there, with which PyTorch's kernels are faster."""
    monkeypatch.setattr(sys.modules["wgan_kernels.rules.conv"], "_ways", {})
    monkeypatch.setattr(sys.modules["wgan_kernels.rules._pairs"], "has_instruction", lambda: True)


@pytest.fixture
def cli():
    """``python -m benchmarks``, in this process."""
    from benchmarks.__main__ import main

    return main
