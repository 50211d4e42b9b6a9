"""Which convolutions minimal filtering serves: layers, their derivatives, penalties and updates."""

import copy
import itertools

import pytest
import torch
from cases import error, needs_compiled
from convolutions import NAMES, both_ways, calls, double, each_kind, geometry, last, layer
from critic_steps import pair
from torch import nn

import wgan_kernels as wk
from wgan_kernels import _dispatch, _native
from wgan_kernels.rules import _winograd, _winograd_same
from wgan_kernels.rules.conv import MAPS, Geometry, conv

pytestmark = [
    needs_compiled,
    pytest.mark.usefixtures("vectors"),
]


# --- who is served ----------------------------------------------------------------------------------------------------
OF_STRIDE_1 = ("winograd_same", "winograd_same_weights")
SWEEPS = ("forward", "pullback", "weights")
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
    "a kernel of 3×3": (X, torch.empty(64, 64, 3, 3), geometry(), True),
    "a kernel of 2×2": (X, torch.empty(64, 64, 2, 2), geometry(), False),
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
    assert _winograd.serve(x, w, how, "forward") is expected


@both_ways
def test_a_small_gain_is_one_to_large_images_and_to_weights(how):
    images = last(torch.empty(192, 64, *((4, 4) if how.transposed else (7, 7))))
    served = {sweep: _winograd.serve(images, X.new_empty(64, 64, 3, 3), how, sweep) for sweep in SWEEPS}
    assert served == {"forward": how.transposed, "pullback": not how.transposed, "weights": True}


OF_STRIDE_1_SERVED = {
    "a critic's": (X, torch.empty(64, 64, 3, 3), geometry(stride=1), True),
    "without padding": (X, torch.empty(96, 64, 3, 3), geometry(0, stride=1), True),
    "of more padding than kernel": (X, torch.empty(64, 64, 3, 3), geometry(3, stride=1), False),
    "a kernel of 4×4": (X, W, geometry(stride=1), False),
    "a kernel of 1×3": (X, torch.empty(64, 64, 1, 3), geometry(stride=1), False),
    "transposed": (X, torch.empty(64, 64, 3, 3), geometry(stride=1, transposed=True), False),
    "in groups": (X, torch.empty(64, 32, 3, 3), geometry(stride=1, groups=2), False),
    "rows of pixels": (X.contiguous(), torch.empty(64, 64, 3, 3), geometry(stride=1), False),
    "single pixels": (last(torch.empty(64, 64, 1, 1)), torch.empty(64, 64, 3, 3), geometry(stride=1), False),
    "no pixel": (last(torch.empty(64, 64, 2, 2)), torch.empty(64, 64, 3, 3), geometry(0, stride=1), False),
}


@pytest.mark.parametrize(("x", "w", "how", "expected"), OF_STRIDE_1_SERVED.values(), ids=OF_STRIDE_1_SERVED)
def test_which_of_stride_1_are_served(x, w, how, expected):
    assert all(_winograd_same.serve(x, w, how, sweep) is expected for sweep in SWEEPS)


@pytest.mark.parametrize(("channels", "side"), [(32, 14), (64, 7)])
def test_weights_of_few_channels_or_of_odd_sizes_at_stride_1_are_pytorchs(channels, side):
    images, kernel = last(torch.empty(64, channels, side, side)), torch.empty(64, channels, 3, 3)
    served = {sweep: _winograd_same.serve(images, kernel, geometry(stride=1), sweep) for sweep in SWEEPS}
    assert served == {"forward": True, "pullback": True, "weights": False}


def test_who_serves_them(monkeypatch):
    def served():
        return _winograd.serve(X, W, geometry(), "forward")

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
    monkeypatch.setattr(_dispatch, "has_vectors", lambda: False)
    assert not served()


def test_vectors_are_those_that_torch_finds(monkeypatch):
    monkeypatch.undo()
    for capability in ("AVX512", "AVX2", "DEFAULT"):
        _dispatch.has_vectors.cache_clear()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        assert _dispatch.has_vectors() is (capability != "DEFAULT")
    _dispatch.has_vectors.cache_clear()


def test_the_gain_counts_the_products_of_all_tiles():
    points = {1: 6, 2: 6, 3: 8, 4: 12, 5: 14, 6: 16, 7: 20, 8: 22, 9: 24}
    assert {size: _winograd._points(size, 4) for size in points} == points
    points = {1: 5, 2: 5, 3: 7, 4: 10, 5: 12, 6: 14, 7: 17, 8: 19, 9: 21}
    assert {size: _winograd._points(size, 3) for size in points} == points
    assert _winograd.gain(10**9, 3, 3, 4) == pytest.approx(36 / 16)
    assert _winograd.gain(10**9, 1, 1, 4) == pytest.approx(4 / 9)
    assert _winograd.gain(10**9, 3, 3, 3) == pytest.approx(81 / 49)


# --- layers -----------------------------------------------------------------------------------------------------------
@each_kind
def test_every_combination_of_gradients(how, taps):
    x, w, b, delta = layer(torch.randn(64, 64, 12, 12), 64, 32, how, taps)
    truth = torch.ops.aten.convolution_backward(*double(delta, x, w), [len(b)], *how, (True, True, True))
    with calls(*(NAMES if how.stride == (2, 2) else OF_STRIDE_1)):
        found = MAPS.forward(x, w, b, how), MAPS.pullback(delta, w, x, how), MAPS.weight_gradient(x, delta, w, how)
        for asked in itertools.product((True, False), repeat=3):
            grads = MAPS.gradients(x, delta, w, how, asked)
            assert [grad is not None for grad in grads] == list(asked)
            for grad, exact in zip(grads, truth, strict=True):
                if grad is not None:
                    assert error(grad, exact) <= 2e-6 * exact.abs().max()
    for result, exact in zip(found, (torch.convolution(*double(x, w, b), *how), *truth[:2]), strict=True):
        assert error(result, exact) <= 2e-6 * exact.abs().max()


@each_kind
def test_two_derivatives(how, taps):
    """As a penalty has them: of the input gradient's square in x, w, b and δ."""
    drawn = layer(torch.randn(64, 64, 12, 12), 64, 32, how, taps)

    def derivatives(convolution, *drawn):
        x, w, b, delta = (t.clone().requires_grad_() for t in drawn)
        y = convolution(x, w, b)
        first = torch.autograd.grad(y.square().sum(), (x, w, b), create_graph=True)
        (dx,) = torch.autograd.grad(y, x, delta, create_graph=True)
        (dw,) = torch.autograd.grad(y, w, delta, create_graph=True)
        loss = dx.square().mean() + dw.square().mean() + sum(grad.square().mean() for grad in first)
        return y, *first, dx, dw, *torch.autograd.grad(loss, (x, w, b, delta))

    with calls(*(NAMES if how.stride == (2, 2) else OF_STRIDE_1)):
        found = derivatives(lambda x, w, b: conv(x, w, b, how), *drawn)
    expected = derivatives(lambda x, w, b: torch.convolution(x, w, b, *how), *double(*drawn))
    for result, exact in zip(found, expected, strict=True):
        assert error(result, exact) <= 1e-4 * exact.abs().max()


# --- penalties and updates --------------------------------------------------------------------------------------------
SHAPE = (64, 1, 24, 24)
# How far gradients may be off, of their norm: an activation within rounding of a kink falls on either side.
TOLERANCES = {nn.Softplus: 1e-4, nn.LeakyReLU: 1e-3}


def critic(activation, taps=4):
    layers = [nn.Conv2d(1, 32, 4, 2, 1), activation(), nn.Conv2d(32, 64, taps, 2, 1), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64 * 36, 1))


def generator():
    layers = [nn.Linear(8, 64 * 36), nn.Unflatten(1, (64, 6, 6)), nn.Softplus(), nn.ConvTranspose2d(64, 64, 4, 2, 1)]
    return nn.Sequential(*layers, nn.Tanh(), nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())


def assert_same_gradients(network, spec, tolerance=1e-4):
    for param, expected in zip(network.parameters(), spec.parameters(), strict=True):
        if expected.grad is not None:
            assert (param.grad - expected.grad).norm() <= tolerance * expected.grad.norm()


@pytest.mark.parametrize("taps", [4, 3])
def test_a_gradient_penalty(taps):
    one = critic(nn.LeakyReLU, taps)
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
@pytest.mark.parametrize("taps", [4, 3])
def test_a_critic_step(activation, taps):
    ours, spec, real, fake = pair(lambda: critic(activation, taps), SHAPE, dtype=torch.float32, tune=True)
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
