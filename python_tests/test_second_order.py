"""Within second_order() values and gradients are plain autograd's, for any critic, and no pass is wasted."""

import collections
import sys

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import wgan_kernels as wk

PIECEWISE = [nn.ReLU, lambda: nn.LeakyReLU(0.2), nn.ReLU6, lambda: nn.Hardtanh(-0.5, 1.5), lambda: nn.LeakyReLU(0.0)]
SMOOTH = [nn.Tanh, nn.Softplus, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid, nn.PReLU]
IN_PLACE = [lambda: nn.ReLU(inplace=True), lambda: nn.LeakyReLU(0.1, inplace=True), lambda: nn.Hardtanh(-1, 1, True)]
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
AVG_POOL, MAX_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d}, {1: nn.MaxPool1d, 2: nn.MaxPool2d}


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    """Rules for layers of any size: the critics of these tests are too small to be worth it."""
    monkeypatch.setattr(sys.modules["wgan_kernels.second_order"], "_WORTHWHILE", 0)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def gradient_norms(critic, x, context):
    x = x.detach().requires_grad_()
    with context:
        scores = critic(x)
    (grad,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return scores, grad


def everything(critic, x, context):
    """Scores, their input gradient, and what each parameter receives from a penalty: a tensor, or None."""
    torch.manual_seed(0)
    scores, grad = gradient_norms(critic, x, context)
    penalty = (grad.flatten(1).norm(dim=1) - 1).square().mean()
    params = [p for p in critic.parameters() if p.requires_grad]
    received = [None] * len(params)
    if penalty.requires_grad:
        received = torch.autograd.grad(penalty, params, retain_graph=True, allow_unused=True)
    first = torch.autograd.grad(scores.square().mean(), params, allow_unused=True)
    return [scores, grad, penalty, *received, *first]


def assert_as_autograd(critic, x, rtol=1e-10, atol=1e-12):
    actual = everything(critic, x, wk.second_order())
    expected = everything(critic, x, wk.reference.second_order())
    assert [a is None for a in actual] == [e is None for e in expected]
    for a, e in zip(actual, expected, strict=True):
        if e is not None:
            assert a.dtype == e.dtype
            torch.testing.assert_close(a, e, rtol=rtol, atol=atol)


@st.composite
def critics(draw):
    """(critic, x): one to six layers of every kind, odd sizes, residual joins; float64."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    activation = st.sampled_from([*PIECEWISE, *SMOOTH, *IN_PLACE])
    layers, batch = [], draw(st.integers(1, 3))
    if draw(st.booleans()):
        width = draw(st.integers(1, 6))
        x = torch.randn(batch, *draw(st.sampled_from([(), (3,)])), width)
        for _ in range(draw(st.integers(1, 6))):
            wider = draw(st.integers(1, 6))
            layers += [nn.Linear(width, wider, bias=draw(st.booleans())), draw(activation)()]
            if draw(st.booleans()):
                layers.append(Residual(nn.Sequential(nn.Linear(wider, wider), draw(activation)())))
            if draw(st.booleans()):
                layers.append(nn.LayerNorm(wider, elementwise_affine=draw(st.booleans()), bias=draw(st.booleans())))
            width = wider
        return nn.Sequential(*layers, nn.Linear(width, 1)).double(), x.double()
    dims = draw(st.integers(1, 3))
    channels = draw(st.integers(1, 3))
    x = torch.randn(batch, channels, *(draw(st.integers(4, 7)) for _ in range(dims)))
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, channels]))
        wider = groups * draw(st.integers(1, 2))
        kind = draw(st.sampled_from([CONV, CONV, TRANSPOSED]))[dims]
        layers.append(
            kind(
                channels,
                wider,
                kernel_size=draw(st.integers(1, 3)),
                stride=draw(st.integers(1, 2)),
                padding=draw(st.sampled_from([0, 1])) if kind in CONV.values() else 0,
                dilation=draw(st.integers(1, 2)) if kind in TRANSPOSED.values() else 1,
                groups=groups,
                bias=draw(st.booleans()),
            )
        )
        layers.append(draw(activation)())
        channels = wider
        if draw(st.booleans()):
            layers.append(Residual(nn.Sequential(CONV[dims](channels, channels, 3, padding=1), draw(activation)())))
        try:
            shape = nn.Sequential(*layers)(x).shape[1:]
        except RuntimeError:  # a kernel larger than what is left of the image
            hypothesis.reject()
        norms = [None, nn.LayerNorm(shape)]
        if shape[1:].numel() > 1:
            norms += [nn.GroupNorm(groups, channels), nn.GroupNorm(1, channels, affine=False)]
            norms.append(INSTANCE_NORM[dims](channels, affine=draw(st.booleans())))
        if norm := draw(st.sampled_from(norms)):
            layers.append(norm)
        if min(shape[1:]) < 4:
            break
        if dims < 3 and draw(st.booleans()):
            layers.append(draw(st.sampled_from([AVG_POOL, MAX_POOL]))[dims](2))
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(1)).float(), x


@given(critics())
def test_any_critic(critic_and_x):
    critic, x = critic_and_x
    critic(x)  # settles lazy layers
    assert_as_autograd(critic.double(), x.double())


def mlp(*hidden, activation=nn.ReLU):
    return nn.Sequential(nn.Linear(4, 6), activation(), *hidden, nn.Linear(6, 1)).double()


def points(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_layer_used_twice():
    shared = nn.Linear(6, 6)
    assert_as_autograd(mlp(shared, nn.ReLU(), shared, nn.ReLU()), points(3, 4))


def test_spectral_and_weight_norm():
    for norm in (nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm):
        critic = mlp(norm(nn.Linear(6, 6)), nn.LeakyReLU(0.2)).eval()
        assert_as_autograd(critic, points(3, 4))


def test_frozen_layers():
    critic = mlp(nn.Linear(6, 6), nn.ReLU())
    critic[0].requires_grad_(False)
    critic[2].bias.requires_grad_(False)
    assert_as_autograd(critic, points(3, 4))


def test_a_branch_that_does_not_depend_on_the_input():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.label, self.score = nn.Linear(4, 6), nn.Linear(2, 6), nn.Linear(6, 1)

        def forward(self, x):
            return self.score(F.relu(self.image(x) + self.label(x.new_ones(len(x), 2))))

    assert_as_autograd(Conditional().double(), points(3, 4))


def test_functional_calls_with_keywords_and_methods():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter(torch.randn(2, 1, 3, 3)), nn.Parameter(torch.randn(1, 2))

        def forward(self, x):
            h = F.conv2d(input=x, weight=self.w, stride=(2, 1), padding=[1])
            h = torch.relu(F.leaky_relu(input=h, negative_slope=0.1)).relu()
            h = F.conv2d(h, self.w.flip(0).expand(2, 2, 3, 3), None, 1, "same")
            return F.linear(h.mean((2, 3)), weight=self.v)

    assert_as_autograd(Functional().double(), points(2, 1, 6, 5))


def test_batch_norm_and_minibatch_statistics():
    critic = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2), nn.Linear(6, 1)).double()
    assert_as_autograd(critic, points(5, 4))
    assert_as_autograd(critic.eval(), points(5, 4))
    assert_as_autograd(nn.Sequential(mlp(), Residual(nn.Identity())), points(5, 4))


def test_hooks_see_what_they_saw():
    critic, seen = mlp(), []
    critic[1].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    critic[0].weight.register_hook(lambda grad: grad * 2)
    assert_as_autograd(critic, points(3, 4))
    assert seen == [(3, 6), (3, 6)]


def test_checkpointed_layers():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.score = mlp(nn.Linear(6, 6), nn.ReLU()), nn.Linear(1, 1)

        def forward(self, x):
            return self.score(checkpoint(self.inner, x, use_reentrant=False))

    assert_as_autograd(Checkpointed().double(), points(3, 4))


def test_channels_last():
    critic = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)).double()
    x = points(2, 3, 8, 8).to(memory_format=torch.channels_last)
    assert_as_autograd(critic.to(memory_format=torch.channels_last), x)


def test_float32():
    critic = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3)).float()
    assert_as_autograd(critic, torch.randn(4, 1, 8, 8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_half_types(dtype, how):
    critic = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 1))
    x = torch.randn(4, 1, 8, 8)
    if how == "weights":
        critic, x = critic.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        assert_as_autograd(critic, x, rtol=0.05, atol=0.05)


def test_nested_decorated_and_restored():
    critic, x = mlp(), points(3, 4).requires_grad_()
    with wk.second_order(), wk.second_order():
        inside = critic(x)
    decorated = wk.second_order()(critic)(x)
    outside = critic(x)
    assert "Addmm" in type(outside.grad_fn).__name__
    assert type(inside.grad_fn) is type(decorated.grad_fn) is not type(outside.grad_fn)
    with pytest.raises(KeyError), wk.second_order():
        raise KeyError
    assert "Addmm" in type(critic(x).grad_fn).__name__


def test_in_place_activations_write_in_place():
    x = points(3, 4).requires_grad_()
    with wk.second_order():
        h = F.linear(x, torch.eye(4, dtype=torch.float64))
        y = F.leaky_relu(h, 0.2, inplace=True)
    assert y is h or y.data_ptr() == h.data_ptr()
    assert torch.equal(h, F.leaky_relu(x, 0.2))


def test_subclasses_and_integers_pass_through():
    class Tagged(torch.Tensor):
        pass

    x = points(3, 4).as_subclass(Tagged).requires_grad_()
    with wk.second_order():
        assert type(F.relu(x)) is Tagged


LAYERS = {
    "linear": (lambda x, w, b: F.linear(x, w, b), [(2, 3), (2, 3), (2,)]),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1), [(2, 2, 5), (3, 2, 3), (3,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (1, 2), 1, 2, 2), [(1, 2, 4, 5), (2, 1, 2, 3), (2,)]),
    "conv2d to one channel": (lambda x, w: F.conv2d(x, w, None, 2, 1, 2), [(2, 1, 6, 5), (3, 1, 2, 3)]),
    "conv3d": (lambda x, w, b: F.conv3d(x, w, b), [(1, 1, 3, 3, 2), (1, 1, 2, 2, 2), (1,)]),
    "transposed": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), [(1, 2, 2, 3), (2, 2, 3, 3), (2,)]),
    "relu": (F.relu, [(3, 4)]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.3), [(3, 4)]),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.7), [(3, 4)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (2, 3), w, b), [(2, 2, 3), (2, 3), (2, 3)]),
    "layer_norm plain": (lambda x: F.layer_norm(x, (4,)), [(3, 4)]),
}


@pytest.mark.parametrize(("layer", "shapes"), LAYERS.values(), ids=LAYERS)
def test_gradients_of_every_rule(layer, shapes):
    inputs = [points(*shape).requires_grad_() for shape in shapes]

    @wk.second_order()
    def function(*inputs):
        return layer(*inputs)

    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)

    def slope(*inputs):
        out = function(*inputs)
        return torch.autograd.grad(out.sin().sum(), inputs, create_graph=True)

    assert gradgradcheck(slope, inputs)


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "convolution_backward":
            name += "." + "".join(letter for letter, wanted in zip("xwb", args[-1], strict=True) if wanted)
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def test_no_pass_is_wasted():
    """Per convolution: forward, input gradient, tangent forward, weight gradient; per activation two pullbacks.

    The first layer's tangent comes from the penalty itself, and its input gradient is the last of the first backward.
    """
    layers = 3
    critic = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.2)) for _ in range(layers)), nn.Conv2d(4, 1, 3)
    )
    with Count() as count:
        wk.gradient_penalty(critic, torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)).backward()
    convolutions = {name: n for name, n in count.counts.items() if name.startswith("convolution")}
    assert convolutions == {
        "convolution": 2 * layers + 1,  # the last layer's tangent is not asked for: its δ is a constant
        "convolution_backward.x": layers + 1,
        "convolution_backward.w": layers + 1,
    }
    assert count.counts["leaky_relu_backward"] == 2 * layers
    assert count.counts["zeros_like"] == layers  # for each bias behind an activation


def test_small_layers_are_left_to_pytorch(monkeypatch):
    """And the activations before the first larger one."""
    monkeypatch.setattr(sys.modules["wgan_kernels.second_order"], "_WORTHWHILE", 1000)
    critic = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 1)).double()
    names = []
    for layer in critic:
        layer.register_forward_hook(lambda module, args, out: names.append(type(out.grad_fn).__name__))
    assert_as_autograd(critic, points(3, 4))
    assert names[:5] == [
        "AddmmBackward0",
        "ReluBackward0",
        "ForwardBackward",
        "PiecewiseLinearBackward",
        "AddmmBackward0",
    ]


def test_curvature_is_not_followed_into_the_input():
    """Nobody asks for the penalty's gradient in x̂, for which the first layer's pullback would run once more."""
    critic = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 1))
    with Count() as count:
        wk.gradient_penalty(critic, torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)).backward()
    assert {name: n for name, n in count.counts.items() if name.startswith("convolution_backward")} == {
        "convolution_backward.x": 2,  # the first pass
        "convolution_backward.w": 2,  # of the tangents
        "convolution_backward.wb": 1,  # what comes back through the first tanh
        "convolution_backward.xwb": 1,  # and through the second
    }
