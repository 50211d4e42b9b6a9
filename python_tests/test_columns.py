"""Convolutions to a few channels as matrix products: forward, input gradient and weight gradient are PyTorch's."""

import math

import pytest
import torch
from cases import assert_as_good, needs_compiled
from convolutions import served
from hypothesis import assume, given
from hypothesis import strategies as st

from wgan_kernels import _layout
from wgan_kernels.rules import _columns
from wgan_kernels.rules._geometry import size
from wgan_kernels.rules.conv import MAPS, Geometry

two = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    """(x, w, how) of a convolution that is served, in either memory format."""
    transposed = draw(st.booleans())
    kernel, dilation, padding = draw(two), draw(two), draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    stride = draw(two) if transposed else (1, 1)
    more = tuple(draw(st.integers(0, s - 1)) for s in stride)
    many, few, pixels = draw(st.integers(1, 5)), draw(st.integers(1, _columns.FEW)), draw(two)
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.integers(1, 3)), many, *(2 * n for n in pixels), dtype=torch.float64)
    w = torch.randn(*((many, few) if transposed else (few, many)), *kernel, dtype=torch.float64)
    if draw(st.booleans()):
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
    how = Geometry(stride, padding, dilation, transposed, more, 1)
    assume(_columns.serve(x, w, how, "forward") and min(size(x.shape, w.shape, how)) > 0)
    return x, w, how


@given(convolutions())
def test_any_geometry(drawn):
    x, w, how = drawn
    b = torch.randn(w.shape[1 if how.transposed else 0], dtype=x.dtype)
    y = torch.convolution(x, w, b, *how)
    delta = torch.randn_like(y)
    of_x, of_w, of_b = torch.ops.aten.convolution_backward(delta, x, w, [len(b)], *how, (True, True, True))
    torch.testing.assert_close(MAPS.forward(x, w, b, how), y)
    torch.testing.assert_close(MAPS.pullback(delta, w, x, how), of_x)
    torch.testing.assert_close(MAPS.weight_gradient(x, delta, w, how), of_w)
    torch.testing.assert_close(MAPS.gradients(x, delta, w, how, (True, True, True)), [of_x, of_w, of_b])
    assert MAPS.gradients(x, delta, w, how, (False, False, False)) == [None] * 3


@needs_compiled
@pytest.mark.usefixtures("vectors")
@given(convolutions())
def test_any_geometry_by_the_kernel(drawn):
    """Which takes float32 in channels-last memory, where nothing is to be differentiated."""
    x, w, how = drawn
    narrow, weight = (t.float().contiguous(memory_format=torch.channels_last) for t in (x, w))
    with torch.no_grad():
        assume(_columns._is_compiled_for(narrow))
        y = MAPS.forward(narrow, weight, None, how)
    exact = torch.convolution(narrow.double(), weight.double(), None, *how)
    assert_as_good(y, torch.convolution(narrow, weight, None, *how), exact)
    assert y.is_contiguous(memory_format=_layout.memory_format(narrow))


@needs_compiled
def test_the_kernel_reads_nothing_beyond_its_image():
    """27 pixels are no multiple of what it takes at once; NaN lies behind the last of them."""
    memory = torch.full((2 * 27 * 8 + 64,), torch.nan)
    memory[: 2 * 27 * 8] = torch.randn(2 * 27 * 8)
    x, w = memory[: 2 * 27 * 8].view(2, 3, 9, 8), torch.randn(8, 1, 3, 3)
    y = torch.ops.wgan_kernels.columns(x, w, 3, 9, 1, 1, 1, 1, 1, 1)
    torch.testing.assert_close(y, torch.conv_transpose2d(x.permute(0, 3, 1, 2), w, padding=1))


@needs_compiled
def test_the_kernel_refuses():
    x, w, numbers = torch.randn(1, 4, 4, 8), torch.randn(8, 1, 3, 3), (4, 4, 1, 1, 1, 1, 1, 1)
    for wrong in ((x.double(), w), (x, w.double()), (x.permute(0, 3, 1, 2), w), (x, w[:4]), (x[0], w)):
        with pytest.raises(RuntimeError, match="columns: "):
            torch.ops.wgan_kernels.columns(*wrong, *numbers)
    torch.library.opcheck(torch.ops.wgan_kernels.columns.default, (x, w, *numbers))


def geometry(stride=1, padding=0, dilation=1, transposed=False, output_padding=0, groups=1):
    pairs = [(n, n) for n in (stride, padding, dilation, output_padding)]
    return Geometry(*pairs[:3], transposed, pairs[3], groups)


X = torch.empty(2, 8, 6, 6)
SERVED = {
    "to one channel": (X, (1, 8, 3, 3), geometry(padding=1), "forward pullback weights"),
    "to four": (X, (4, 8, 3, 3), geometry(padding=1), "forward pullback weights"),
    "transposed to three": (X, (8, 3, 4, 4), geometry(2, 1, transposed=True), "forward"),
    "from three": (X[:, :3], (8, 3, 4, 4), geometry(2, 1), "pullback"),
    "from three by single pixels": (X[:, :3], (8, 3, 1, 1), geometry(), ""),
    "to five": (X, (5, 8, 3, 3), geometry(padding=1), ""),
    "of single pixels": (X, (1, 8, 1, 1), geometry(), ""),
    "of stride 2": (X, (1, 8, 3, 3), geometry(2, 1), ""),
    "to a quarter of the pixels": (X, (1, 8, 4, 4), geometry(), ""),
    "to a single pixel": (X, (1, 8, 6, 6), geometry(), ""),
    "of more padding than kernel": (X, (1, 8, 3, 3), geometry(padding=3), ""),
    "in groups": (X, (2, 4, 3, 3), geometry(padding=1, groups=2), ""),
    "of one dimension": (X[0], (1, 6, 3), Geometry((1,), (1,), (1,), False, (0,), 1), ""),
    "in half precision": (X.bfloat16(), (1, 8, 3, 3), geometry(padding=1), ""),
}


@pytest.mark.parametrize(("x", "w", "how", "expected"), SERVED.values(), ids=SERVED)
def test_which_are_served(x, w, how, expected):
    assert served(_columns, x, torch.empty(w), how) == expected


def test_the_size_is_that_of_the_convolution():
    for x, w, how, sweeps in SERVED.values():
        if sweeps:
            expected = torch.convolution(x, torch.empty(w), None, *how).shape[2:]
            assert size(x.shape, w, how) == list(expected) and math.prod(expected) > 1
