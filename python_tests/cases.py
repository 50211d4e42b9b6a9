"""What all op tests share: backends, dtypes, inputs, and the one tolerance table."""

import importlib.util
import math

import pytest
import torch

from wgan_kernels import _native

# Relative to the largest element of the exact result. Half types are judged by eager's own error instead.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6}
# Before 2.15 PyTorch's own double backward of a GroupNorm crashed on channels-last samples (seen in 2.11 and 2.13), and
# gave its bias nothing where it gives zeros now.
GROUP_NORM_IS_SOUND = tuple(int(number) for number in torch.__version__.split(".")[:2]) >= (2, 15)
needs_compiled = pytest.mark.skipif(_native.cpu is None, reason=f"needs the compiled part: {_native.why_not['cpu']}")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def _why_not(backend, device):
    if device == "cuda" and not torch.cuda.is_available():
        return "needs a CUDA device: this test has never run on one here"
    if backend == "cuda" and _native.cuda is None:
        return f"the CUDA kernels are not built: {_native.why_not['cuda']}"
    if backend == "triton" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if backend == "triton" and device == "cpu" and torch.cuda.is_available():
        return "Triton's interpreter is off where there is a GPU"
    return None


def _params(pairs):
    return [
        pytest.param(
            backend,
            device,
            id=f"{backend}-{device}",
            marks=[pytest.mark.skip(reason=reason)] if (reason := _why_not(backend, device)) else [],
        )
        for backend, device in pairs
    ]


# Every backend that a kernel has, on every device where it can run.
on_every_backend = pytest.mark.parametrize(
    ("backend", "device"), _params([("cpp", "cpu"), ("triton", "cpu"), ("triton", "cuda"), ("cuda", "cuda")])
)
on_cuda = pytest.mark.parametrize(("backend", "device"), _params([("triton", "cuda"), ("cuda", "cuda")]))
in_every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))

# Sizes and strides of a batch, plain and awkward. Each takes (dtype, device) and draws from the global generator.
BATCHES = {
    "one": lambda **kw: torch.randn(1, **kw),
    "vector": lambda **kw: torch.randn(7, **kw),
    "column": lambda **kw: torch.randn(5, 1, **kw),
    "no_samples": lambda **kw: torch.randn(0, 3, **kw),
    "no_features": lambda **kw: torch.randn(3, 0, **kw),
    "odd": lambda **kw: torch.randn(3, 7, 5, **kw),
    "image": lambda **kw: torch.randn(2, 3, 8, 8, **kw),
    "wide": lambda **kw: torch.randn(2, 4099, **kw),
    "wider_than_a_chunk": lambda **kw: torch.randn(2, 3 * 4096 + 1, **kw),
    "sliced": lambda **kw: torch.randn(4, 9, **kw)[1:, ::2],
    "offset": lambda **kw: torch.randn(3, 6, **kw)[:, 1:],
    "transposed": lambda **kw: torch.randn(6, 4, **kw).t(),
    "expanded": lambda **kw: torch.randn(1, 5, **kw).expand(3, 5),
    "channels_last": lambda **kw: torch.randn(2, 3, 4, 5, **kw).contiguous(memory_format=torch.channels_last),
    "channels_last_3d": lambda **kw: torch.randn(2, 3, 2, 3, 4, **kw).contiguous(memory_format=torch.channels_last_3d),
}
on_every_batch = pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)


def error(actual, exact):
    """Largest difference of any element; 0 where both are the same NaN or infinity."""
    actual, exact = actual.detach().cpu().double(), exact.detach().cpu().double()
    assert actual.shape == exact.shape
    same = (actual == exact) | (actual.isnan() & exact.isnan())
    difference = torch.where(same, 0.0, (actual - exact).abs())
    return difference.nan_to_num(nan=math.inf).max().item() if difference.numel() else 0.0


def assert_as_good(actual, eager, exact):
    """``actual`` is as near to the float64 result as the dtype promises.

    float64, float32: within the table. Half types: error ≤ 2 × the error of eager at that precision, where rounding the
    exact result costs nothing extra.
    """
    assert actual.dtype == eager.dtype
    scale = exact.detach().double().nan_to_num(0, 0, 0).abs().max().item() if exact.numel() else 0.0
    if actual.dtype in TOLERANCE:
        allowed = TOLERANCE[actual.dtype] * max(scale, 1.0)
    else:
        allowed = max(2 * error(eager, exact), torch.finfo(actual.dtype).eps / 2 * scale)
    assert error(actual, exact) <= allowed, f"error {error(actual, exact):.3g}, allowed {allowed:.3g}"
