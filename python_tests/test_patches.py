"""Convolutions from a few channels by the patches of pixels: forward and weight gradient are PyTorch's."""

import pytest
import torch
from cases import assert_as_good, needs_compiled
from convolutions import double, geometry, last, served
from hypothesis import assume, given
from hypothesis import strategies as st

import wgan_kernels as wk
from wgan_kernels import _dispatch
from wgan_kernels.rules import _patches
from wgan_kernels.rules._geometry import size
from wgan_kernels.rules.conv import MAPS, Geometry

pytestmark = [
    needs_compiled,
    pytest.mark.usefixtures("vectors"),
]
operators = torch.ops.wgan_kernels
DTYPES = [torch.float32, torch.bfloat16]


def theirs(x, w, b, delta, how):
    grads = torch.ops.aten.convolution_backward(delta, x, w, None, *how, (False, True, False))
    return torch.convolution(x, w, b, *how), grads[1]


def ours(x, w, b, delta, how):
    return _patches.forward(x, w, b, how), _patches.weight_gradient(x, delta, w, how)


# --- the two maps -----------------------------------------------------------------------------------------------------
two = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    """(x, w, b, δ, how), in any memory."""
    stride, dilation, kernel = draw(two), draw(two), draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    how = Geometry(stride, draw(st.tuples(st.integers(0, 3), st.integers(0, 3))), dilation, False, (0, 0), 1)
    few, many, dtype = draw(st.integers(1, 4)), draw(st.sampled_from([32, 64, 96])), draw(st.sampled_from(DTYPES))
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.integers(1, 19)), few, *draw(st.tuples(st.integers(1, 30), st.integers(1, 30))))
    w, b = torch.randn(many, few, *kernel), torch.randn(many) if draw(st.booleans()) else None
    assume(min(size(x.shape, w.shape, how)) > 0)
    delta = torch.randn_like(torch.convolution(x, w, b, *how))
    if draw(st.booleans()):
        x = torch.randn(len(x), 2 * few, *x.shape[2:])[:, ::2]
    images = [last(t) if draw(st.booleans()) else t for t in (x, w, delta)]
    x, w, delta = (t.to(dtype) for t in images)
    return x, w, b if b is None else b.to(dtype), delta, how


@given(convolutions())
def test_any_geometry(drawn):
    x, w, b, delta, how = drawn
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        y, of_w = ours(*drawn)
    finally:
        torch.use_deterministic_algorithms(False)
    exact = theirs(*double(x, w, b, delta), how)
    for result, plain, truth in zip((y, of_w), theirs(*drawn), exact, strict=True):
        assert_as_good(result, plain, truth)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert of_w.stride() == torch.empty_like(w).stride()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_errors_are_those_of_pytorch(dtype):
    x, how = last(torch.randn(64, 3, 32, 32)), geometry()
    drawn = [x, torch.randn(64, 3, 4, 4), torch.randn(64), last(torch.randn(64, 64, 16, 16))]
    drawn = [t.to(dtype) for t in drawn]
    for result, plain, truth in zip(ours(*drawn, how), theirs(*drawn, how), theirs(*double(*drawn), how), strict=True):
        assert (result - truth).norm() <= 1.5 * (plain - truth).norm()


def test_an_empty_batch():
    w, how = torch.randn(32, 2, 3, 3), geometry()
    y, of_w = ours(torch.empty(0, 2, 6, 6), w, None, torch.empty(0, 32, 3, 3), how)
    assert y.shape == (0, 32, 3, 3) and of_w.eq(0).all()


def test_the_same_bits_with_any_number_of_threads():
    how, before, results = geometry(), torch.get_num_threads(), []
    drawn = torch.randn(67, 1, 28, 28), torch.randn(64, 1, 4, 4), torch.randn(64), torch.randn(67, 64, 14, 14)
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(ours(*drawn, how))
    finally:
        torch.set_num_threads(before)
    for each in zip(*results, strict=True):
        assert all(torch.equal(each[0], other) for other in each[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite_go_where_they_go_by_pytorch(value, dtype):
    x, w, b = torch.randn(3, 2, 9, 9), torch.randn(32, 2, 3, 3), torch.randn(32)
    delta, how = torch.randn(3, 32, 9, 9), geometry(stride=1)
    x[1, 1, 4, 4] = delta[2, 7, 3, 3] = value
    drawn = [t.to(dtype) for t in (x, w, b, delta)]
    for result, plain in zip(ours(*drawn, how), theirs(*drawn, how), strict=True):
        assert torch.equal(result.isfinite(), plain.isfinite())
        assert torch.equal(result.isnan(), plain.isnan())


# --- who is served ----------------------------------------------------------------------------------------------------
X, W = last(torch.empty(2, 3, 8, 8)), torch.empty(32, 3, 4, 3)
ONE = torch.empty(2, 8, 8, 1).permute(0, 3, 1, 2)
SERVED = {
    "of three channels": (X, W, geometry(), "forward weights"),
    "of one": (ONE, W[:, :1], geometry(), "forward weights"),
    "of one in bfloat16": (ONE.bfloat16(), W[:, :1].bfloat16(), geometry(), "forward weights"),
    "of three in bfloat16": (X.bfloat16(), W.bfloat16(), geometry(), ""),
    "of stride 1, dilated": (X, W, geometry(0, stride=1, dilation=2), "forward weights"),
    "of one, in rows": (torch.empty(2, 1, 8, 8), W[:, :1], geometry(), ""),
    "of three, in rows": (X.contiguous(), W, geometry(), ""),
    "of five": (last(torch.empty(2, 5, 8, 8)), torch.empty(32, 5, 3, 3), geometry(), ""),
    "to 48": (X, torch.empty(48, 3, 4, 3), geometry(), ""),
    "of other channels than the images": (X, W[:, :2], geometry(), ""),
    "of large patches": (X, torch.empty(32, 3, 4, 4), geometry(), ""),
    "of single numbers": (ONE, torch.empty(32, 1, 1, 1), geometry(0), ""),
    "transposed": (X, torch.empty(3, 32, 4, 3), geometry(transposed=True), ""),
    "in groups": (X, torch.empty(96, 1, 4, 3), geometry(groups=3), ""),
    "in double precision": (X.double(), W.double(), geometry(), ""),
    "weights of another dtype": (X, W.bfloat16(), geometry(), ""),
    "no sample": (X[:0], W, geometry(), ""),
    "no pixel": (X, W, geometry(0, dilation=4), ""),
    "of one dimension": (X[0], W[0], Geometry((2,), (1,), (1,), False, (0,), 1), ""),
    "on another device": (X.to("meta"), W.to("meta"), geometry(), ""),
}


@pytest.mark.parametrize(("x", "w", "how", "expected"), SERVED.values(), ids=SERVED)
def test_which_are_served(x, w, how, expected):
    assert served(_patches, x, w, how) == expected


def test_who_serves_them(monkeypatch):
    assert _patches.serve(X, W, geometry(), "forward")
    with wk.use_backend("reference"):
        assert not _patches.serve(X, W, geometry(), "forward")
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not _patches.serve(X, W, geometry(), "forward")
    monkeypatch.setattr(_dispatch, "has_vectors", lambda: False)
    assert not _patches.serve(X, W, geometry(), "forward")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rule_of_convolutions_takes_them(dtype):
    x, w, b = (torch.randn(*shape).to(dtype) for shape in ((4, 8, 8, 1), (32, 1, 4, 4), (32,)))
    x, how = x.permute(0, 3, 1, 2), geometry()
    delta = last(torch.randn(4, 32, 4, 4).to(dtype))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        y, of_w = MAPS.forward(x, w, b[::1], how), MAPS.weight_gradient(x, delta, w, how)
    assert {"wgan_kernels::patches_forward", "wgan_kernels::patches_weights"} <= {e.key for e in profile.key_averages()}
    for result, plain, truth in zip(
        (y, of_w), theirs(x, w, b, delta, how), theirs(*double(x, w, b, delta), how), strict=True
    ):
        assert_as_good(result, plain, truth)


# --- operators --------------------------------------------------------------------------------------------------------
NUMBERS, DELTA = [2, 2, 1, 1, 1, 1], torch.randn(2, 4, 4, 32)
WRONG = {
    "x in double precision": ({"x": X.double()}, "x must be"),
    "x of three dimensions": ({"x": X[0]}, "x must be"),
    "w of another dtype": ({"w": W.bfloat16()}, "w must be .* of the dtype of x"),
    "w of other channels": ({"w": W[:, :2]}, "w must be"),
    "w to 48 channels": ({"w": torch.empty(48, 3, 4, 3)}, "multiple of 32"),
    "w without taps": ({"w": W[..., :0]}, "w must be"),
    "half a geometry": ({"geometry": [2, 2, 1]}, "the geometry is"),
    "no stride": ({"geometry": [0, 2, 1, 1, 1, 1]}, "no such geometry"),
    "less than no padding": ({"geometry": [2, 2, -1, 1, 1, 1]}, "no such geometry"),
    "no dilation": ({"geometry": [2, 2, 1, 1, 1, 0]}, "no such geometry"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_operators_refuse(change, words):
    given = {"x": X, "w": W, "geometry": NUMBERS} | change
    with pytest.raises(RuntimeError, match=words):
        operators.patches_forward(given["x"], given["w"], None, given["geometry"])
    with pytest.raises(RuntimeError, match=words):
        operators.patches_weights(given["x"], DELTA, given["w"], given["geometry"])


@pytest.mark.parametrize("delta", [DELTA[:1], DELTA[:, :3], DELTA[..., :16], DELTA.double(), DELTA.transpose(1, 2)])
def test_an_output_gradient_that_does_not_fit_is_refused(delta):
    with pytest.raises(RuntimeError, match="delta must be"):
        operators.patches_weights(X, delta, W, NUMBERS)


def test_a_bias_that_does_not_fit_is_refused():
    for bias in (torch.empty(16), torch.empty(32).double(), torch.empty(64)[::2]):
        with pytest.raises(RuntimeError, match="bias must be"):
            operators.patches_forward(X, W, bias, NUMBERS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operators_are_whole(dtype):
    x, w, delta = (torch.randn(t.shape).to(dtype) for t in (X, W, DELTA))
    torch.library.opcheck(operators.patches_forward.default, (x, w, w.new_empty(32).zero_(), NUMBERS))
    torch.library.opcheck(operators.patches_weights.default, (x, delta, w, NUMBERS))
