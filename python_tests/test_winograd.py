"""Convolutions with 4×4 kernels and stride 2 by minimal filtering are PyTorch's convolutions, in every map."""

import contextlib
import copy
import itertools

import pytest
import torch
from cases import error
from critic_steps import pair
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import wgan_kernels as wk
from wgan_kernels import _dispatch, _native
from wgan_kernels.rules import _winograd
from wgan_kernels.rules.conv import MAPS, Geometry, conv

pytestmark = pytest.mark.skipif(_native.cpu is None, reason=f"needs the compiled part: {_native.why_not['cpu']}")
operators = torch.ops.wgan_kernels
NAMES = ("down", "up", "weights")


@pytest.fixture(autouse=True)
def wide_vectors(monkeypatch):
    """Served on any machine: the kernels run everywhere, only not fast."""
    monkeypatch.setattr(_dispatch, "has_wide_vectors", lambda: True)


def last(t):
    return t.contiguous(memory_format=torch.channels_last)


def geometry(padding=1, output_padding=0, transposed=False, dilation=1, stride=2, groups=1):
    pairs = [n if isinstance(n, tuple) else (n, n) for n in (stride, padding, dilation, output_padding)]
    return Geometry(*pairs[:3], transposed, pairs[3], groups)


def layer(x, in_channels, out_channels, how):
    """(x, w, b, δ), images in channels-last memory."""
    w = torch.randn(*((in_channels, out_channels) if how.transposed else (out_channels, in_channels)), 4, 4)
    b = torch.randn(out_channels)
    return last(x), w, b, last(torch.randn_like(torch.convolution(x, w, b, *how)))


def ours(x, w, b, delta, how):
    return [
        _winograd.forward(x, w, b, how),
        _winograd.pullback(delta, w, x, how),
        _winograd.weight_gradient(x, delta, w, how),
    ]


def theirs(x, w, b, delta, how):
    grads = torch.ops.aten.convolution_backward(delta, x, w, None, *how, (True, True, False))
    return [torch.convolution(x, w, b, *how), *grads[:2]]


def double(*tensors):
    return [t if t is None else t.double() for t in tensors]


# --- the three maps -------------------------------------------------------------------------------------------------
sides = st.tuples(st.integers(1, 17), st.integers(1, 17))
paddings = st.tuples(st.integers(0, 3), st.integers(0, 3))
channels = st.sampled_from([32, 64, 96])


@st.composite
def weights(draw, *shape):
    """Of either memory format, or a part of larger ones."""
    memory = draw(st.sampled_from(["contiguous", "channels-last", "of more channels", "of larger kernels"]))
    if memory == "of more channels":
        return torch.randn(shape[0] + 1, 2 * shape[1], 4, 4)[1:, ::2]
    if memory == "of larger kernels":
        return torch.randn(*shape, 6, 5)[..., 1:5, 1:]
    return last(torch.randn(*shape, 4, 4)) if memory == "channels-last" else torch.randn(*shape, 4, 4)


@st.composite
def convolutions(draw):
    """(x, w, b, δ, how)"""
    transposed, batch = draw(st.booleans()), draw(st.integers(1, 3))
    inner, outer = draw(channels), draw(channels)
    more = draw(st.tuples(st.integers(0, 1), st.integers(0, 1))) if transposed else 0
    how = geometry(draw(paddings), more, transposed)
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(batch, inner, *draw(sides))
    w = draw(weights(*((inner, outer) if transposed else (outer, inner))))
    b = torch.randn(outer) if draw(st.booleans()) else None
    size = (
        _winograd.size(x, how)
        if transposed
        else [(n + 2 * p - 2) // 2 for n, p in zip(x.shape[2:], how.padding, strict=True)]
    )
    assume(min(size) > 0)
    delta = torch.randn(batch, outer, *size)
    return *(t if draw(st.booleans()) else last(t) for t in (x, delta)), w, b, how


@given(convolutions())
def test_any_geometry(drawn):
    x, delta, w, b, how = drawn
    torch.use_deterministic_algorithms(True)  # which fills fresh outputs with NaN
    try:
        results = ours(x, w, b, delta, how)
    finally:
        torch.use_deterministic_algorithms(False)
    exact = theirs(*double(x, w, b, delta), how)
    for result, plain, truth in zip(results, theirs(x, w, b, delta, how), exact, strict=True):
        # A pixel at the border takes all products of its tile, and PyTorch the few that meet the image.
        allowed = 2 * error(plain, truth) + 8 * torch.finfo(torch.float32).eps * truth.abs().max().item()
        assert result.dtype == torch.float32 and error(result, truth) <= allowed
    y, of_x, of_w = results
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, of_x))
    assert of_w.stride() == torch.empty_like(w).stride()


SERVED_GEOMETRIES = {"down": geometry(), "up": geometry(transposed=True)}
both_ways = pytest.mark.parametrize("how", SERVED_GEOMETRIES.values(), ids=SERVED_GEOMETRIES)


@both_ways
def test_rounding_errors_are_those_of_pytorch(how):
    x, w, b, delta = layer(torch.randn(8, 64, 14, 14), 64, 96, how)
    exact = theirs(*double(x, w, b, delta), how)
    for result, plain, truth in zip(ours(x, w, b, delta, how), theirs(x, w, b, delta, how), exact, strict=True):
        assert (result - truth).norm() <= 1.5 * (plain - truth).norm()


# 128 and 256 channels have tiles of other numbers, and 64 a slice of its own
@pytest.mark.parametrize(("inner", "outer"), [(128, 32), (32, 256), (288, 32), (64, 160)])
def test_many_channels(inner, outer):
    for how in SERVED_GEOMETRIES.values():
        x, w, b, delta = layer(torch.randn(5, inner, 11, 13), inner, outer, how)
        for result, truth in zip(ours(x, w, b, delta, how), theirs(*double(x, w, b, delta), how), strict=True):
            assert error(result, truth) <= 2e-6 * truth.abs().max()


@both_ways
@pytest.mark.parametrize("part", [lambda b: b.repeat_interleave(2)[::2], lambda b: b[:1].expand(64)])
def test_a_bias_in_any_memory(how, part):
    x, w, b, _ = layer(torch.randn(8, 64, 14, 14), 64, 64, how)
    y = MAPS.forward(x, w, part(b), how)
    torch.testing.assert_close(y, torch.convolution(x, w, part(b), *how), rtol=1e-4, atol=1e-4)


@both_ways
def test_an_empty_batch(how):
    x, w, b, delta = layer(torch.randn(1, 32, 6, 6), 32, 64, how)
    y, of_x, of_w = ours(x[:0], w, b, delta[:0], how)
    assert y.shape == delta[:0].shape and of_x.shape == x[:0].shape and of_w.eq(0).all()


@both_ways
def test_the_same_bits_with_any_number_of_threads(how):
    x, w, b, delta = layer(torch.randn(6, 64, 13, 11), 64, 64, how)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(ours(x, w, b, delta, how))
    finally:
        torch.set_num_threads(before)
    for each in zip(*results, strict=True):
        assert all(torch.equal(each[0], other) for other in each[1:])


# --- values that are not finite ---------------------------------------------------------------------------------------
def spoilt(how, name, where, value, x, w, b, delta):
    """Where the results of the three maps are not finite, with this value at one place of one argument.

    Wherever direct convolution is not finite they are not, and all that stays finite stays what it was.
    """
    spoiled = {"x": x, "w": w, "b": b, "delta": delta}
    spoiled[name] = spoiled[name].clone()
    spoiled[name][where] = value
    bad = []
    before, direct = ours(x, w, b, delta, how), theirs(**spoiled, how=how)
    for result, plain, truth in zip(ours(**spoiled, how=how), before, direct, strict=True):
        bad.append(~result.isfinite())
        assert bad[-1][~truth.isfinite()].all() and torch.equal(result[~bad[-1]], plain[~bad[-1]])
    return bad


in_every_value = pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])


@both_ways
@in_every_value
@pytest.mark.parametrize("name", ["x", "delta"])
def test_a_pixel_that_is_not_finite_spoils_its_tiles_alone(how, value, name):
    drawn = layer(torch.randn(2, 32, 20, 22), 32, 32, how)
    of_x, of_delta, of_w = spoilt(how, name, (1, 5, 4, 7), value, *drawn)
    image, other = (of_x, of_delta) if name == "x" else (of_delta, of_x)
    assert not image[0].any() and not other.any()
    is_large = (name == "delta") is not how.transposed  # what it is a pixel of is then the small image
    for axis in (0, 1):  # two tiles of three outputs, in the large image of every second pixel
        assert 2 <= image[1].any(0).any(axis).sum() <= (12 if is_large else 6)
    channel = of_w[5] if is_large else of_w[:, 5]
    assert of_w.sum() == channel.sum() == channel.numel() // (1 if is_large else 4)  # one phase, or all of them


@both_ways
@in_every_value
def test_a_weight_that_is_not_finite_spoils_its_channels_alone(how, value):
    x, w, b, delta = layer(torch.randn(2, 32, 10, 12), 32, 32, how)
    of_x, of_delta, of_w = spoilt(how, "w", (4, 6, 1, 2), value, x, w, b, delta)
    large, small = (of_x, of_delta) if how.transposed else (of_delta, of_x)
    assert small[:, 4].all() and small.sum() == small[:, 4].sum() and not of_w.any()
    assert 0 < large.sum() == large[:, 6].sum() <= large[:, 6].numel() // 4


# --- who is served ----------------------------------------------------------------------------------------------------
X, W = last(torch.empty(64, 64, 14, 14)), torch.empty(64, 64, 4, 4)
SERVED = {
    "a critic's": (X, W, geometry(), True),
    "a generator's": (X, W, geometry(transposed=True), True),
    "to an odd size": (X, W, geometry(output_padding=1, transposed=True), True),
    "of any padding": (X, W, geometry((0, 3)), True),
    "weights in channels-last memory": (X, last(W), geometry(), True),
    "of more channels": (X, torch.empty(96, 64, 4, 4), geometry(), True),
    "larger than PyTorch allows": (X, W, geometry(output_padding=2, transposed=True), False),
    "of more padding than kernel": (X, W, geometry(4), False),
    "of other channels than the images": (X, torch.empty(64, 32, 4, 4), geometry(), False),
    "a kernel of 3×3": (X, torch.empty(64, 64, 3, 3), geometry(), False),
    "a kernel of 4×3": (X, torch.empty(64, 64, 4, 3), geometry(), False),
    "of stride 1": (X, W, geometry(stride=1), False),
    "of stride 2 by 1": (X, W, geometry(stride=(2, 1)), False),
    "dilated": (X, W, geometry(dilation=2), False),
    "in groups": (X, torch.empty(64, 32, 4, 4), geometry(groups=2), False),
    "in double precision": (X.double(), W.double(), geometry(), False),
    "in half precision": (X.bfloat16(), W.bfloat16(), geometry(), False),
    "weights of another dtype": (X, W.double(), geometry(), False),
    "rows of pixels": (X.contiguous(), W, geometry(), False),
    "48 channels": (X[:, :48].contiguous(memory_format=torch.channels_last), W[:, :48], geometry(), False),
    "to 48 channels": (X, W[:48], geometry(), False),
    "no sample": (X[:0], W, geometry(), False),
    "no pixel": (X[..., :1, :1].contiguous(memory_format=torch.channels_last), W, geometry(0), False),
    "of one dimension": (X[0], W[0], Geometry((2,), (1,), (1,), False, (0,), 1), False),
    "a single sample": (X[:1], W, geometry(), False),
    "to 2×2 pixels, of which each tile has a half": (last(torch.empty(64, 64, 4, 4)), W, geometry(), False),
    "on another device": (X.to("meta"), W.to("meta"), geometry(), False),
}


@pytest.mark.parametrize(("x", "w", "how", "expected"), SERVED.values(), ids=SERVED)
def test_which_are_served(x, w, how, expected):
    assert _winograd.serve(x, w, how) is expected


def test_who_serves_them(monkeypatch):
    def served():
        return _winograd.serve(X, W, geometry())

    assert served()
    with wk.use_backend("cpp"):
        assert served()
    with wk.use_backend("reference"):
        assert not served()
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not served()
    with monkeypatch.context() as patch:
        patch.setitem(_native.why_not, "cpu", "not built")
        assert not served()
    monkeypatch.setattr(_dispatch, "has_wide_vectors", lambda: False)
    assert not served()


def test_wide_vectors_are_those_that_torch_finds(monkeypatch):
    monkeypatch.undo()
    for capability in ("AVX512", "AVX2", "DEFAULT"):
        _dispatch.has_wide_vectors.cache_clear()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        assert _dispatch.has_wide_vectors() is (capability == "AVX512")
    _dispatch.has_wide_vectors.cache_clear()


def test_the_gain_counts_the_products_of_all_tiles():
    points = {1: 3, 2: 3, 3: 4, 4: 6, 5: 7, 6: 8, 7: 10, 8: 11, 9: 12}
    assert {size: _winograd._points(size) for size in points} == points
    assert _winograd.gain(10**9, 3, 3) == pytest.approx(36 / 16)
    assert _winograd.gain(10**9, 1, 1) == pytest.approx(4 / 9)


# --- layers -----------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def calls(*maps):
    """Each of these operators is called within at least once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        yield
    seen = {event.key for event in profile.key_averages()}
    assert {f"wgan_kernels::winograd_{name}" for name in maps} <= seen


@both_ways
def test_every_combination_of_gradients(how):
    x, w, b, delta = layer(torch.randn(16, 32, 12, 12), 32, 64, how)
    truth = torch.ops.aten.convolution_backward(*double(delta, x, w), [len(b)], *how, (True, True, True))
    with calls(*NAMES):
        found = MAPS.forward(x, w, b, how), MAPS.pullback(delta, w, x, how), MAPS.weight_gradient(x, delta, w, how)
        for asked in itertools.product((True, False), repeat=3):
            grads = MAPS.gradients(x, delta, w, how, asked)
            assert [grad is not None for grad in grads] == list(asked)
            for grad, exact in zip(grads, truth, strict=True):
                if grad is not None:
                    torch.testing.assert_close(grad.double(), exact, rtol=1e-4, atol=1e-4)
    for result, exact in zip(found, (torch.convolution(*double(x, w, b), *how), *truth[:2]), strict=True):
        torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-4)


@both_ways
def test_two_derivatives(how):
    """As a penalty has them: of the input gradient's square in x, w, b and δ."""
    drawn = layer(torch.randn(16, 32, 12, 12), 32, 32, how)

    def derivatives(convolution, *drawn):
        x, w, b, delta = (t.clone().requires_grad_() for t in drawn)
        y = convolution(x, w, b)
        first = torch.autograd.grad(y.square().sum(), (x, w, b), create_graph=True)
        (dx,) = torch.autograd.grad(y, x, delta, create_graph=True)
        (dw,) = torch.autograd.grad(y, w, delta, create_graph=True)
        loss = dx.square().mean() + dw.square().mean() + sum(grad.square().mean() for grad in first)
        return y, *first, dx, dw, *torch.autograd.grad(loss, (x, w, b, delta))

    with calls(*NAMES):
        found = derivatives(lambda x, w, b: conv(x, w, b, how), *drawn)
    expected = derivatives(lambda x, w, b: torch.convolution(x, w, b, *how), *double(*drawn))
    for result, exact in zip(found, expected, strict=True):
        assert error(result, exact) <= 1e-4 * exact.abs().max()


# --- penalties and updates --------------------------------------------------------------------------------------------
SHAPE = (64, 1, 24, 24)
# How far gradients may be off, of their norm: an activation within rounding of a kink falls on either side.
TOLERANCES = {nn.Softplus: 1e-4, nn.LeakyReLU: 1e-3}


def critic(activation):
    layers = [nn.Conv2d(1, 32, 4, 2, 1), activation(), nn.Conv2d(32, 64, 4, 2, 1), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64 * 36, 1))


def generator():
    layers = [nn.Linear(8, 64 * 36), nn.Unflatten(1, (64, 6, 6)), nn.Softplus(), nn.ConvTranspose2d(64, 64, 4, 2, 1)]
    return nn.Sequential(*layers, nn.Tanh(), nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())


def assert_same_gradients(network, spec, tolerance=1e-4):
    for param, expected in zip(network.parameters(), spec.parameters(), strict=True):
        if expected.grad is not None:
            assert (param.grad - expected.grad).norm() <= tolerance * expected.grad.norm()


def test_a_gradient_penalty():
    one = critic(nn.LeakyReLU)
    two = copy.deepcopy(one)
    real, fake, eps = torch.randn(SHAPE), torch.randn(SHAPE), torch.rand(SHAPE[0], 1, 1, 1)
    with calls(*NAMES):
        penalty = wk.gradient_penalty(one, real, fake, eps=eps)
        penalty.backward()
    spec = wk.reference.gradient_penalty(two, real, fake, eps=eps)
    spec.backward()
    torch.testing.assert_close(penalty, spec, rtol=1e-4, atol=0)
    assert_same_gradients(one, two, TOLERANCES[nn.LeakyReLU])


@pytest.mark.parametrize("activation", TOLERANCES)
def test_a_critic_step(activation):
    ours, spec, real, fake = pair(lambda: critic(activation), SHAPE, dtype=torch.float32, tune=True)
    ours.tuned[SHAPE] = "the program, in channels-last memory"
    with calls(*NAMES):
        torch.manual_seed(1)
        metrics = ours(real, fake)
    torch.manual_seed(1)
    torch.testing.assert_close(metrics, spec(real, fake), rtol=1e-4, atol=1e-5)
    assert_same_gradients(ours.critic, spec.critic, TOLERANCES[activation])


def test_a_generator_step():
    one, judge = generator(), nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 1))
    two = copy.deepcopy(one)
    step = wk.GeneratorStep(one, judge, torch.optim.SGD(one.parameters(), lr=1e-3))
    spec = wk.reference.GeneratorStep(two, judge, torch.optim.SGD(two.parameters(), lr=1e-3))
    step.tuned["update"] = "few channels by products, channels-last memory"
    latent = torch.randn(SHAPE[0], 8)
    with calls(*NAMES):
        metrics = step(latent)
    torch.testing.assert_close(metrics, spec(latent), rtol=1e-4, atol=1e-5)
    assert_same_gradients(one, two)


# --- operators --------------------------------------------------------------------------------------------------------
LARGE, SMALL, KERNEL, BIAS = torch.empty(2, 8, 6, 64), torch.empty(2, 4, 3, 32), torch.empty(32, 64, 4, 4), torch.empty
ARGUMENTS = {
    "down": {"large": LARGE, "w": KERNEL, "bias": BIAS(32), "rows": 1, "columns": 1},
    "up": {"small": SMALL, "w": KERNEL, "bias": BIAS(64), "height": 8, "width": 6, "rows": 1, "columns": 1},
    "weights": {"large": LARGE, "small": SMALL, "w": KERNEL, "rows": 1, "columns": 1},
}
IMAGES, CHANNELS = "must be contiguous .* of float32 on the CPU", "has other channels than w"
WRONG = {
    "large in double precision": ("down weights", {"large": LARGE.double()}, f"large {IMAGES}"),
    "small in double precision": ("up weights", {"small": SMALL.double()}, f"small {IMAGES}"),
    "large of every second row": ("down weights", {"large": torch.empty(2, 16, 6, 64)[:, ::2]}, f"large {IMAGES}"),
    "small turned": ("up weights", {"small": torch.empty(2, 3, 4, 32).transpose(1, 2)}, f"small {IMAGES}"),
    "large of three dimensions": ("down weights", {"large": LARGE[0]}, f"large {IMAGES}"),
    "large of half the channels": ("down weights", {"large": LARGE[..., :32].clone()}, f"large {CHANNELS}"),
    "small of twice the channels": ("up weights", {"small": torch.empty(2, 4, 3, 64)}, f"small {CHANNELS}"),
    "w in double precision": ("down up weights", {"w": KERNEL.double()}, "w must be"),
    "w of 3×3": ("down up weights", {"w": KERNEL[..., :3, :3]}, "w must be"),
    "w of 48 channels": ("down up weights", {"w": torch.empty(32, 48, 4, 4)}, "channels in multiples of 32"),
    "w of no channels": ("down up weights", {"w": torch.empty(0, 64, 4, 4)}, "w must be"),
    "a bias of other channels": ("down up", {"bias": BIAS(96)}, r"bias must be contiguous \[(32|64)\]"),
    "a bias in double precision": ("down up", {"bias": BIAS(32).double()}, "bias must be"),
    "every second of a bias": ("down up", {"bias": BIAS(128)[::2]}, "bias must be contiguous"),
    "no pixel left": ("down", {"large": torch.empty(2, 8, 1, 64)}, "no pixel is left"),
    "no row": ("up", {"height": 0}, "no pixel is left"),
    "less than no column": ("up", {"width": -2}, "no pixel is left"),
    "padding below zero": ("down up weights", {"rows": -1}, ""),
    "other batches": ("weights", {"small": torch.empty(3, 4, 3, 32)}, "batches differ"),
}


@pytest.mark.parametrize(("names", "changed", "said"), WRONG.values(), ids=WRONG)
def test_errors(names, changed, said):
    for name in names.split():
        with pytest.raises(RuntimeError, match=f"winograd_{name}: .*{said}"):
            getattr(operators, f"winograd_{name}")(*(ARGUMENTS[name] | changed).values())


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name):
    operator = getattr(operators, f"winograd_{name}")
    drawn = {key: torch.randn_like(t) if isinstance(t, torch.Tensor) else t for key, t in ARGUMENTS[name].items()}
    torch.library.opcheck(operator, tuple(drawn.values()))
    others = {"bias": None} if "bias" in drawn else {}
    torch.library.opcheck(operator, tuple((drawn | others | {"w": last(drawn["w"]), "rows": 0}).values()))
