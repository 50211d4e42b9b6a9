import importlib.util
import threading
from pathlib import Path

import pytest
import torch
from processes import run_python

import wgan_kernels as wk
from wgan_kernels import _dispatch, _native

CPU = torch.device("cpu")


def run(code, **env):
    return run_python(code, Path(wk.__file__).parent.parent, **env)


def test_default_on_the_cpu():
    for op in ("clip", "interpolate", "norm_penalty", "wasserstein", "layer_norm"):
        assert _dispatch.choose(op, CPU) == ("cpp", "the default on cpu")


def test_auto_passes_over_what_cannot_run_and_says_why(monkeypatch):
    backend, reason = _dispatch.choose("clip", torch.device("meta"))
    assert backend == "reference"
    monkeypatch.setitem(_native.why_not, "cuda", "not built")
    backend, reason = _dispatch.choose("clip", torch.device("cuda"))
    assert backend == ("triton" if importlib.util.find_spec("triton") else "reference")
    assert reason.startswith("cuda: not built" if backend == "triton" else "triton: ")
    monkeypatch.setitem(_native.why_not, "cuda", None)
    assert _dispatch.choose("clip", torch.device("cuda")) == ("cuda", "the default on cuda")


def test_use_backend_nests_and_restores():
    with wk.use_backend("reference"):
        assert _dispatch.choose("clip", CPU)[0] == "reference"
        with wk.use_backend("auto"):
            assert _dispatch.choose("clip", CPU)[0] == "cpp"
        with pytest.raises(KeyError), wk.use_backend("cpp"):
            raise KeyError
        assert _dispatch.choose("clip", CPU)[0] == "reference"
    assert _dispatch.choose("clip", CPU)[0] == "cpp"


def test_use_backend_decorates():
    @wk.use_backend("reference")
    def choice():
        return _dispatch.choose("clip", CPU)[0]

    assert choice() == choice() == "reference"


def test_use_backend_is_of_its_thread():
    seen = []
    with wk.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(_dispatch.choose("clip", CPU)[0]))
        thread.start()
        thread.join()
    assert seen == ["cpp"]


def test_the_reference_is_what_runs_when_asked_for(monkeypatch):
    called = []
    monkeypatch.setattr(wk.reference, "interpolate", lambda *args, **kwargs: called.append(args))
    with wk.use_backend("reference"):
        wk.interpolate(torch.ones(2, 1), torch.ones(2, 1))
    assert len(called) == 1


def test_environment_variable():
    code = "import torch, wgan_kernels as wk; print(wk.backends()['clip', 'cpu'].chosen)"
    assert run(code, WGAN_KERNELS_BACKEND="reference").stdout.strip() == "reference"
    assert run(code, WGAN_KERNELS_BACKEND="").stdout.strip() == "cpp"
    code = "import torch, wgan_kernels as wk; wk.clip_(torch.ones(3), 1.0)"
    wrong = run(code, WGAN_KERNELS_BACKEND="gpu")
    assert "WGAN_KERNELS_BACKEND: backend is 'gpu', expected one of" in wrong.stderr
    unmet = run(code, WGAN_KERNELS_BACKEND="cuda")
    assert "backend 'cuda' was asked for and cannot run on cpu" in unmet.stderr


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_triton_on_the_cpu_needs_the_interpreter():
    code = "import torch, wgan_kernels as wk\nwith wk.use_backend('triton'): wk.clip_(torch.ones(3), 1.0)"
    assert "TRITON_INTERPRET=1" in run(code, TRITON_INTERPRET="0").stderr


def test_backends_table():
    table = wk.backends()
    ops = ("clip", "interpolate", "norm_penalty", "wasserstein", "layer_norm", "rmsprop", "adam")
    assert set(table) == {(op, device) for op in ops for device in ("cpu", "cuda")}
    row = table["clip", "cpu"]
    assert row.chosen == "cpp" and "reference" in row.available and "cuda" in row.why_not
    text = str(table)
    assert "norm_penalty" in text and "not available:" in text and "cuda on cpu: its kernels run on cuda" in text
    if not torch.cuda.is_available():
        assert table["clip", "cuda"].chosen == "none"
        assert set(table["clip", "cuda"].why_not.values()) == {"no CUDA device is present"}
