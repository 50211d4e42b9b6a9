"""Convolutions in bfloat16 by products of pairs: input and weight gradients are PyTorch's."""

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
from wgan_kernels.rules import _pairs
from wgan_kernels.rules._geometry import size
from wgan_kernels.rules.conv import Geometry, conv

pytestmark = OF_PAIRS
operators = torch.ops.wgan_kernels


def layer(batch, inner, outer, sides, how, kernel=(4, 4)):
    """(x, w, b, δ) in bfloat16, images in channels-last memory."""
    x, w = (
        torch.randn(batch, inner, *sides),
        torch.randn(*((inner, outer) if how.transposed else (outer, inner)), *kernel),
    )
    delta = torch.randn_like(torch.convolution(x, w, None, *how))
    return narrow(last(x), w, torch.randn(outer), last(delta))


def ours(x, w, b, delta, how):
    """[(result, which of PyTorch's three it is)]"""
    large = (0, _pairs.forward(x, w, b, how)) if how.transposed else (1, _pairs.pullback(delta, w, x, how))
    return [large, (2, _pairs.weight_gradient(x, delta, w, how))]


# --- the two maps -----------------------------------------------------------------------------------------------------
two = st.tuples(st.integers(1, 3), st.integers(1, 3))
channels = st.sampled_from([32, 64, 96, 160])


@st.composite
def convolutions(draw):
    """(x, w, b, δ, how), in any memory."""
    kernel, stride, transposed = draw(st.tuples(st.integers(1, 5), st.integers(1, 5))), draw(two), draw(st.booleans())
    padding = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    more = tuple(draw(st.integers(0, s - 1)) for s in stride) if transposed else 0
    how = geometry(padding, more, transposed, stride=stride)
    torch.manual_seed(draw(st.integers(0, 99)))
    inner, outer = draw(channels), draw(channels)
    x = torch.randn(draw(st.integers(1, 9)), inner, *draw(st.tuples(st.integers(1, 17), st.integers(1, 17))))
    w = torch.randn(*((inner, outer) if transposed else (outer, inner)), *kernel)
    assume(min(size(x.shape, w.shape, how)) > 0)
    b = torch.randn(outer) if draw(st.booleans()) else None
    delta = torch.randn_like(torch.convolution(x, w, b, *how))
    if draw(st.booleans()):
        w = torch.randn(len(w) + 1, 2 * w.shape[1], *kernel)[1:, ::2]
    images = [last(t) if draw(st.booleans()) else t for t in (x, w, delta)]
    x, w, delta, b = narrow(*images, b)
    return x, w, b, delta, how


@given(convolutions())
def test_any_geometry(drawn):
    x, w, b, delta, how = drawn
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        results = ours(*drawn)
    finally:
        torch.use_deterministic_algorithms(False)
    plain, exact = theirs(*drawn), theirs(*double(x, w, b, delta), how)
    for i, result in results:
        assert_as_good(result, plain[i], exact[i])
    (_, large), (_, of_w) = results
    assert large.is_contiguous(memory_format=torch.channels_last)
    assert of_w.stride() == torch.empty_like(w).stride()


# One slice of the small image's channels and several; blocks of many samples, and of one that is larger than a block.
@pytest.mark.parametrize(("batch", "inner", "outer", "side"), [(67, 32, 288, 5), (9, 96, 128, 14), (3, 32, 32, 40)])
@pytest.mark.parametrize("transposed", [False, True])
def test_rounding_errors_are_those_of_pytorch(batch, inner, outer, side, transposed):
    how = geometry(transposed=transposed)
    drawn = layer(batch, inner, outer, (side, side), how)
    plain, exact = theirs(*drawn, how), theirs(*double(*drawn), how)
    for i, result in ours(*drawn, how):
        assert (result - exact[i]).norm() <= 1.01 * (plain[i] - exact[i]).norm()  # both round once


def test_an_empty_batch():
    x, w, _, delta = layer(1, 32, 64, (6, 6), geometry())
    assert _pairs.pullback(delta[:0], w, x[:0], geometry()).shape == x[:0].shape
    of_w = operators.pairs_weights(x.permute(0, 2, 3, 1)[:0], delta.permute(0, 2, 3, 1)[:0], w, NUMBERS)
    assert of_w.shape == w.shape and of_w.eq(0).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_the_same_bits_with_any_number_of_threads(transposed):
    how, before, results = geometry(transposed=transposed), torch.get_num_threads(), []
    drawn = layer(37, 32, 64, (9, 11), how)
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append([result for _, result in ours(*drawn, how)])
    finally:
        torch.set_num_threads(before)
    for each in zip(*results, strict=True):
        assert all(torch.equal(each[0], other) for other in each[1:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [4, 5])
def test_values_that_are_not_finite_go_where_they_go_by_pytorch(value, batch):
    how = geometry()
    x, w, b, delta = layer(batch, 32, 64, (10, 12), how)
    x[batch - 1, 1, 4, 4] = delta[batch - 1, 7, 3, 3] = delta[0, 9, 2, 2] = value
    plain = theirs(x, w, b, delta, how)
    for i, result in ours(x, w, b, delta, how):
        assert torch.equal(result.isfinite(), plain[i].isfinite())
        assert not result.isfinite().all()


# --- who is served ----------------------------------------------------------------------------------------------------
X, W = last(torch.empty(8, 64, 14, 14)).bfloat16(), torch.empty(64, 64, 4, 4).bfloat16()
SERVED = {
    "a critic's": (X, W, geometry(), "pullback weights"),
    "a generator's": (X, W, geometry(transposed=True), "forward weights"),
    "to an odd size": (X, W, geometry(output_padding=1, transposed=True), "forward weights"),
    "3×5 of stride 3 by 2": (X, W[..., :3, :].repeat(1, 1, 1, 2)[..., :5], geometry(stride=(3, 2)), "pullback weights"),
    "of stride 1": (X, W, geometry(stride=1), "weights"),
    "of stride 2 by 1": (X, W, geometry(stride=(2, 1)), "weights"),
    "three samples": (X[:3], W, geometry(), "pullback"),
    "single numbers": (X, W[..., :1, :1], geometry(0, stride=1), ""),
    "dilated": (X, W, geometry(dilation=2), ""),
    "in groups": (X, W[:, :32], geometry(groups=2), ""),
    "in single precision": (X.float(), W.float(), geometry(), ""),
    "in half precision": (X.half(), W.half(), geometry(), ""),
    "weights of another dtype": (X, W.float(), geometry(), ""),
    "rows of pixels": (X.contiguous(), W, geometry(), ""),
    "48 channels": (last(X[:, :48]), W[:, :48], geometry(), ""),
    "of other channels than the images": (X, W[:, :32], geometry(), ""),
    "no sample": (X[:0], W, geometry(), ""),
    "no pixel": (last(X[..., :1, :1]), W, geometry(0), ""),
    "of one dimension": (X[0], W[0], Geometry((2,), (1,), (1,), False, (0,), 1), ""),
    "on another device": (X.to("meta"), W.to("meta"), geometry(), ""),
}


@pytest.mark.parametrize(("x", "w", "how", "expected"), SERVED.values(), ids=SERVED)
def test_which_are_served(x, w, how, expected):
    assert served(_pairs, x, w, how) == expected


def test_who_serves_them(monkeypatch):
    assert_products_of_pairs_are_refused(lambda: served(_pairs, X, W, geometry()), monkeypatch)


def test_with_better_instructions_pytorch_serves_them(monkeypatch):
    monkeypatch.undo()
    for has_amx in (True, False):
        _pairs.has_instruction.cache_clear()
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)  # noqa: B023
        assert _pairs.has_instruction() is not has_amx
    monkeypatch.undo()
    _pairs.has_instruction.cache_clear()


# --- layers, penalties and updates ------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [geometry(), geometry(transposed=True), geometry(stride=1)], ids=["down", "up", "1"])
def test_every_combination_of_gradients(how):
    x, w, b, delta = layer(4, 64, 32, (12, 12), how)
    with calls("pairs_weights", *(["pairs_up"] if how.stride == (2, 2) else [])):
        assert_layer_as_good(x, w, b, delta, how)


def test_two_derivatives():
    x, w, b, delta = (t.requires_grad_() for t in layer(4, 32, 32, (8, 8), geometry()))
    twins = [t.detach().double().requires_grad_() for t in (x, w, b, delta)]
    (of_x,) = torch.autograd.grad(conv(x, w, b, geometry()), x, delta, create_graph=True)
    with calls("pairs_weights"):
        of_w, of_delta = torch.autograd.grad(of_x.square().sum(), (w, delta))
    (of_twin,) = torch.autograd.grad(torch.convolution(*twins[:3], *geometry()), twins[0], twins[3], create_graph=True)
    exact = torch.autograd.grad(of_twin.square().sum(), (twins[1], twins[3]))
    for grad, truth in zip((of_w, of_delta), exact, strict=True):
        assert (grad - truth).norm() <= 1e-2 * truth.norm()


SHAPE = 16, 1, 24, 24


def critic():
    layers = [nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(64, 64, 3, 1, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64 * 36, 1))


def assert_as_exact(one, plain, exact):
    """Their gradients, those of autograd under autocast, and in float64."""
    for param, eager, truth in zip(*(net.parameters() for net in (one, plain, exact)), strict=True):
        if truth.grad is not None:
            assert (param.grad - truth.grad).norm() <= 2 * (eager.grad - truth.grad).norm()


def test_a_gradient_penalty():
    one = critic()
    plain, exact = copy.deepcopy(one), copy.deepcopy(one).double()
    real, fake, eps = torch.randn(SHAPE), torch.randn(SHAPE), torch.rand(SHAPE[0], 1, 1, 1)
    with calls("pairs_up", "pairs_weights"), torch.autocast("cpu", torch.bfloat16):
        wk.gradient_penalty(one, real, fake, eps=eps).backward()
    with torch.autocast("cpu", torch.bfloat16):
        wk.reference.gradient_penalty(plain, real, fake, eps=eps).backward()
    wk.reference.gradient_penalty(exact, *double(real, fake), eps=eps.double()).backward()
    assert_as_exact(one, plain, exact)


def test_a_generator_step():
    layers = [nn.Linear(8, 64 * 36), nn.Unflatten(1, (64, 6, 6)), nn.Softplus(), nn.ConvTranspose2d(64, 64, 4, 2, 1)]
    one = nn.Sequential(*layers, nn.Tanh(), nn.ConvTranspose2d(64, 1, 4, 2, 1)).to(memory_format=torch.channels_last)
    judge = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 1))
    plain, exact = copy.deepcopy(one), copy.deepcopy(one).double()
    step = wk.GeneratorStep(one, judge, torch.optim.SGD(one.parameters(), lr=1e-3), precision="bfloat16")
    step.tuned["update"] = "few channels by products, channels-last memory"
    latent = torch.randn(SHAPE[0], 8)
    with calls("pairs_up", "pairs_weights"):
        step(latent)
    with torch.autocast("cpu", torch.bfloat16):
        wk.reference.generator_loss(judge(plain(latent))).backward()
    wk.reference.generator_loss(copy.deepcopy(judge).double()(exact(latent.double()))).backward()
    assert_as_exact(one, plain, exact)


# --- operators --------------------------------------------------------------------------------------------------------
NUMBERS = [2, 2, 1, 1]
LARGE, SMALL = torch.empty(2, 8, 6, 64).bfloat16(), torch.empty(2, 4, 3, 32).bfloat16()
KERNEL, BIAS = torch.empty(32, 64, 4, 4).bfloat16(), torch.empty(64).bfloat16()
ARGUMENTS = {
    "up": {"small": SMALL, "w": KERNEL, "bias": BIAS, "height": 8, "width": 6, "geometry": NUMBERS},
    "weights": {"large": LARGE, "small": SMALL, "w": KERNEL, "geometry": NUMBERS},
}
IMAGES, CHANNELS = "must be contiguous .* of bfloat16 on the CPU", "has other channels than w"
WRONG = {
    "large in single precision": ("weights", {"large": LARGE.float()}, f"large {IMAGES}"),
    "small in single precision": ("up weights", {"small": SMALL.float()}, f"small {IMAGES}"),
    "small turned": ("up weights", {"small": SMALL.transpose(1, 2)}, f"small {IMAGES}"),
    "large of three dimensions": ("weights", {"large": LARGE[0]}, f"large {IMAGES}"),
    "large of half the channels": ("weights", {"large": LARGE[..., :32].clone()}, f"large {CHANNELS}"),
    "small of twice the channels": ("up weights", {"small": SMALL.repeat(1, 1, 1, 2)}, f"small {CHANNELS}"),
    "w in single precision": ("up weights", {"w": KERNEL.float()}, "w must be"),
    "w of 48 channels": ("up weights", {"w": KERNEL[:, :48]}, "multiples of 32"),
    "w without taps": ("up weights", {"w": KERNEL[..., :0]}, "w must be"),
    "a bias of other channels": ("up", {"bias": BIAS[:32]}, r"bias must be contiguous \[64\] of bfloat16"),
    "a bias in single precision": ("up", {"bias": BIAS.float()}, "bias must be"),
    "no row": ("up", {"height": 0}, "no pixel is left"),
    "less than no column": ("up", {"width": -2}, "no pixel is left"),
    "half a geometry": ("up weights", {"geometry": [2, 1]}, "the geometry is"),
    "no stride": ("up weights", {"geometry": [2, 0, 1, 1]}, "the geometry is stride, of 1 at least"),
    "less than no padding": ("up weights", {"geometry": [2, 2, -1, 1]}, "the geometry is"),
    "other batches": ("weights", {"small": torch.empty(3, 4, 3, 32).bfloat16()}, "batches differ"),
}


@pytest.mark.parametrize(("names", "changed", "said"), WRONG.values(), ids=WRONG)
def test_errors(names, changed, said):
    for name in names.split():
        with pytest.raises(RuntimeError, match=f"pairs_{name}: .*{said}"):
            getattr(operators, f"pairs_{name}")(*(ARGUMENTS[name] | changed).values())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_opcheck(name):
    operator = getattr(operators, f"pairs_{name}")
    drawn = {
        key: torch.randn(t.shape).bfloat16() if isinstance(t, torch.Tensor) else t for key, t in ARGUMENTS[name].items()
    }
    torch.library.opcheck(operator, tuple(drawn.values()))
    others = {"bias": None} if "bias" in drawn else {}
    torch.library.opcheck(operator, tuple((drawn | others | {"w": last(drawn["w"])}).values()))
