"""Convolutions in bfloat16 from two to four channels, and to them, by products of pairs are PyTorch's in every map."""

import copy

import pytest
import torch
from cases import assert_as_good
from convolutions import (
    OF_PAIRS,
    assert_layer_as_good,
    assert_products_of_pairs_are_refused,
    calls,
    double,
    geometry,
    last,
    narrow,
    served,
    theirs,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import wgan_kernels as wk
from wgan_kernels.rules import _pairs_few
from wgan_kernels.rules._geometry import size
from wgan_kernels.rules.conv import Geometry

pytestmark = OF_PAIRS
operators = torch.ops.wgan_kernels
OPERATORS = ("pairs_few", "pairs_few_up", "pairs_few_weights")
KINDS = ("from few", "to few, transposed", "to few, of stride 1")
each_kind = pytest.mark.parametrize("kind", KINDS)


def ours(x, w, b, delta, how):
    way = _pairs_few
    return way.forward(x, w, b, how), way.pullback(delta, w, x, how), way.weight_gradient(x, delta, w, how)


def layer(kind, few, many, batch=5, side=9, taps=3):
    """(x, w, b, δ, how) in bfloat16, images in channels-last memory."""
    how = geometry(stride=1 if kind == KINDS[2] else 2, transposed=kind == KINDS[1])
    inner, outer = (few, many) if kind == KINDS[0] else (many, few)
    w = torch.randn(*((inner, outer) if how.transposed else (outer, inner)), taps, taps)
    x = torch.randn(batch, inner, side, side)
    x, w, b, delta = narrow(last(x), w, torch.randn(outer), last(torch.randn_like(torch.convolution(x, w, None, *how))))
    return x, w, b, delta, how


# --- the three maps ---------------------------------------------------------------------------------------------------
two = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    """(x, w, b, δ, how), in any memory."""
    kind, few, many = draw(st.sampled_from(KINDS)), draw(st.integers(2, 4)), draw(st.sampled_from([32, 64, 160]))
    kernel = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    stride = (1, 1) if kind == KINDS[2] else draw(two)
    padding = draw(st.tuples(*(st.integers(0, taps - 1 if kind == KINDS[2] else 4) for taps in kernel)))
    more = tuple(draw(st.integers(0, s - 1)) for s in stride) if kind == KINDS[1] else 0
    how = geometry(padding, more, kind == KINDS[1], stride=stride)
    torch.manual_seed(draw(st.integers(0, 99)))
    inner, outer = (few, many) if kind == KINDS[0] else (many, few)
    x = torch.randn(draw(st.integers(1, 9)), inner, *draw(st.tuples(st.integers(1, 17), st.integers(1, 17))))
    w = torch.randn(*((inner, outer) if how.transposed else (outer, inner)), *kernel)
    assume(min(size(x.shape, w.shape, how)) > 0)
    b = torch.randn(outer) if draw(st.booleans()) else None
    delta = torch.randn_like(torch.convolution(x, w, b, *how))
    if draw(st.booleans()):
        w = torch.randn(len(w) + 1, 2 * w.shape[1], *kernel)[1:, ::2]
    x, w, delta, b = narrow(*(last(t) if draw(st.booleans()) else t for t in (x, w, delta)), b)
    return x, w, b, delta, how


@given(convolutions())
def test_any_geometry(drawn):
    x, w, b, delta, how = drawn
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        results = ours(*drawn)
    finally:
        torch.use_deterministic_algorithms(False)
    for result, plain, exact in zip(results, theirs(*drawn), theirs(*double(x, w, b, delta), how), strict=True):
        assert_as_good(result, plain, exact)
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in results[:2])


@pytest.mark.parametrize("few", [2, 3, 4])
@each_kind
def test_rounding_errors_are_those_of_pytorch(kind, few):
    x, w, b, delta, how = layer(kind, few, 64, batch=33, side=24, taps=4)
    exact = theirs(*double(x, w, b, delta), how)
    for result, plain, truth in zip(ours(x, w, b, delta, how), theirs(x, w, b, delta, how), exact, strict=True):
        assert (result - truth).norm() <= 1.01 * (plain - truth).norm()  # both round once


@each_kind
def test_an_empty_batch(kind):
    x, w, b, delta, how = layer(kind, 3, 32)
    y, of_x, of_w = ours(x[:0], w, b, delta[:0], how)
    assert y.shape == delta[:0].shape and of_x.shape == x[:0].shape and of_w.eq(0).all()


@each_kind
def test_the_same_bits_with_any_number_of_threads(kind):
    before, results, drawn = torch.get_num_threads(), [], layer(kind, 3, 64, batch=37)
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(ours(*drawn))
    finally:
        torch.set_num_threads(before)
    for each in zip(*results, strict=True):
        assert all(torch.equal(each[0], other) for other in each[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("few", [2, 3, 4])
@each_kind
def test_values_that_are_not_finite_go_where_they_go_by_pytorch(kind, few, value):
    x, w, b, delta, how = layer(kind, few, 32)
    x[4, 1, 4, 4] = delta[4, few - 1, 3, 3] = delta[0, 1, 2, 2] = value
    for result, plain in zip(ours(x, w, b, delta, how), theirs(x, w, b, delta, how), strict=True):
        assert torch.equal(result.isfinite(), plain.isfinite())
        assert not result.isfinite().all()


# --- who is served ----------------------------------------------------------------------------------------------------
X, W = last(torch.empty(8, 3, 14, 14)).bfloat16(), torch.empty(64, 3, 4, 4).bfloat16()
MANY = last(torch.empty(8, 64, 14, 14)).bfloat16()
ALL, FORWARD_NOT, PULLBACK_NOT = "forward pullback weights", "pullback weights", "forward weights"
SERVED = {
    "a critic's first": (X, W, geometry(), ALL),
    "of a single sample": (X[:1], W, geometry(stride=1), ALL),
    "of large images": (last(torch.empty(2, 3, 64, 64)).bfloat16(), W, geometry(), FORWARD_NOT),
    "a generator's last": (MANY, W, geometry(transposed=True), ALL),
    "to an odd size": (MANY, W, geometry(output_padding=1, transposed=True), ALL),
    "of stride 1": (MANY, W.transpose(0, 1), geometry(stride=1), ALL),
    "to large images": (last(torch.empty(2, 64, 32, 32)).bfloat16(), W, geometry(transposed=True), PULLBACK_NOT),
    "to few channels by strides": (MANY, W.transpose(0, 1), geometry(), ""),
    "of more padding than kernel": (MANY, W.transpose(0, 1), geometry(4, stride=1), ""),
    "of one channel": (last(X[:, :1]), W[:, :1], geometry(), ""),
    "of five": (last(torch.empty(8, 5, 14, 14)).bfloat16(), torch.empty(64, 5, 4, 4).bfloat16(), geometry(), ""),
    "from few to few": (X, W[:3], geometry(stride=1), ""),
    "to 48": (X, W[:48], geometry(), ""),
    "from few, transposed": (X, torch.empty(3, 64, 4, 4).bfloat16(), geometry(transposed=True), ""),
    "single numbers": (X, W[..., :1, :1], geometry(0), ""),
    "dilated": (X, W, geometry(dilation=2), ""),
    "in groups": (MANY, W[:, :2], geometry(groups=32), ""),
    "in single precision": (X.float(), W.float(), geometry(), ""),
    "in half precision": (X.half(), W.half(), geometry(), ""),
    "weights of another dtype": (X, W.float(), geometry(), ""),
    "rows of pixels": (X.contiguous(), W, geometry(), ""),
    "of other channels than the images": (X, W[:, :2], geometry(), ""),
    "no sample": (X[:0], W, geometry(), ""),
    "no pixel": (last(X[..., :1, :1]), W, geometry(0), ""),
    "of one dimension": (X[0], W[0], Geometry((2,), (1,), (1,), False, (0,), 1), ""),
    "on another device": (X.to("meta"), W.to("meta"), geometry(), ""),
}


@pytest.mark.parametrize(("x", "w", "how", "expected"), SERVED.values(), ids=SERVED)
def test_which_are_served(x, w, how, expected):
    assert served(_pairs_few, x, w, how) == expected


def test_who_serves_them(monkeypatch):
    assert_products_of_pairs_are_refused(lambda: served(_pairs_few, X, W, geometry()), monkeypatch)


# --- layers and penalties ---------------------------------------------------------------------------------------------
@each_kind
def test_every_combination_of_gradients(kind):
    x, w, b, delta, how = layer(kind, 3, 64)
    with calls(*OPERATORS):
        assert_layer_as_good(x, w, b, delta, how)


def test_a_gradient_penalty():
    layers = [nn.Conv2d(3, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 4, 3, 1, 1), nn.LeakyReLU(0.2), nn.Flatten()]
    one = nn.Sequential(*layers, nn.Linear(4 * 64, 1))
    plain, exact = copy.deepcopy(one), copy.deepcopy(one).double()
    real, fake, eps = torch.randn(9, 3, 16, 16), torch.randn(9, 3, 16, 16), torch.rand(9, 1, 1, 1)
    with calls(*OPERATORS), torch.autocast("cpu", torch.bfloat16):
        wk.gradient_penalty(one, real, fake, eps=eps).backward()
    with torch.autocast("cpu", torch.bfloat16):
        wk.reference.gradient_penalty(plain, real, fake, eps=eps).backward()
    wk.reference.gradient_penalty(exact, *double(real, fake), eps=eps.double()).backward()
    for param, eager, truth in zip(*(net.parameters() for net in (one, plain, exact)), strict=True):
        if truth.grad is not None:
            assert (param.grad - truth.grad).norm() <= 2 * (eager.grad - truth.grad).norm()


# --- operators --------------------------------------------------------------------------------------------------------
LARGE, SMALL = torch.empty(2, 8, 6, 3).bfloat16(), torch.empty(2, 4, 3, 32).bfloat16()
KERNEL, BIAS, NUMBERS = torch.empty(32, 3, 4, 4).bfloat16(), torch.empty(32).bfloat16(), [2, 2, 1, 1]
ARGUMENTS = {
    "": {"large": LARGE, "w": KERNEL, "bias": BIAS, "height": 4, "width": 3, "geometry": NUMBERS},
    "_up": {"small": SMALL, "w": KERNEL, "bias": BIAS[:3], "height": 8, "width": 6, "geometry": NUMBERS},
    "_weights": {"large": LARGE, "small": SMALL, "w": KERNEL, "geometry": NUMBERS},
}
WRONG = {
    "large in single precision": (["", "_weights"], {"large": LARGE.float()}, "large must be"),
    "small turned": (["_up", "_weights"], {"small": SMALL.transpose(1, 2)}, "small must be contiguous"),
    "large of three dimensions": (["", "_weights"], {"large": LARGE[0]}, "large must be"),
    "large of other channels": (["", "_weights"], {"large": LARGE[..., :2].clone()}, "large has other channels"),
    "w in single precision": (ARGUMENTS, {"w": KERNEL.float()}, "w must be"),
    "w of one channel": (ARGUMENTS, {"w": KERNEL[:, :1]}, "2 to 4 of the large image"),
    "w of five channels": (ARGUMENTS, {"w": torch.empty(32, 5, 4, 4).bfloat16()}, "2 to 4 of the large image"),
    "w of 16 channels": (ARGUMENTS, {"w": KERNEL[:16]}, "multiples of 32"),
    "w without taps": (ARGUMENTS, {"w": KERNEL[..., :0]}, "w must be"),
    "a bias of other channels": (["", "_up"], {"bias": BIAS[:16]}, r"bias must be contiguous \[(32|3)\] of bfloat16"),
    "half a geometry": (ARGUMENTS, {"geometry": [2, 1]}, "the geometry is"),
    "no stride": (ARGUMENTS, {"geometry": [2, 0, 1, 1]}, "the geometry is"),
    "less than no padding": (ARGUMENTS, {"geometry": [2, 2, -1, 1]}, "the geometry is"),
    "too many rows": ([""], {"height": 5}, "has not so many pixels"),
    "no column": ([""], {"width": 0}, "has not so many pixels"),
    "no pixel": (["_up"], {"height": 0}, "no pixel is left"),
    "more pixels than there can be": (["_weights"], {"small": torch.empty(2, 5, 3, 32).bfloat16()}, "large has not"),
    "other batches": (["_weights"], {"small": torch.empty(3, 4, 3, 32).bfloat16()}, "batches differ"),
}


@pytest.mark.parametrize(("names", "changed", "said"), WRONG.values(), ids=WRONG)
def test_errors(names, changed, said):
    for name in names:
        with pytest.raises(RuntimeError, match=f"pairs_few{name}: .*{said}"):
            getattr(operators, f"pairs_few{name}")(*(ARGUMENTS[name] | changed).values())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_opcheck(name):
    operator, given = getattr(operators, f"pairs_few{name}"), ARGUMENTS[name]
    drawn = given | {key: torch.randn(t.shape).bfloat16() for key, t in given.items() if isinstance(t, torch.Tensor)}
    torch.library.opcheck(operator, tuple(drawn.values()))
    others = {"bias": None} if "bias" in drawn else {}
    torch.library.opcheck(operator, tuple((drawn | others | {"w": last(drawn["w"])}).values()))
