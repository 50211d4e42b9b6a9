"""Within second_order() values and gradients are plain autograd's, for any critic, and no pass is wasted."""

import copy
import sys

import pytest
import torch
from critics import Residual, assert_as_autograd, critics, everything, is_on_a_kink, mlp, points
from hypothesis import assume, given
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import wgan_kernels as wk

pytestmark = pytest.mark.usefixtures("however_small")


@given(critics())
def test_any_critic(critic_and_x):
    assume(not is_on_a_kink(*critic_and_x))
    assert_as_autograd(*critic_and_x)


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


def test_hardsigmoid_which_pytorch_refuses():
    """Compared with its formula, also before any larger layer and in place."""

    class Plain(nn.Module):
        def forward(self, x):
            return ((x + 3) / 6).clamp(0, 1)

    x = 4 * points(3, 4)
    for kind in (nn.Hardsigmoid, lambda: nn.Hardsigmoid(inplace=True)):
        critic = nn.Sequential(nn.Hardsigmoid(), mlp(nn.Linear(6, 6), kind(), nn.Linear(6, 6)))
        plain = copy.deepcopy(critic)
        plain[0], plain[1][3] = Plain(), Plain()
        actual, expected = everything(critic, x, wk.second_order()), everything(plain, x, wk.reference.second_order())
        for a, e in zip(actual, expected, strict=True):
            if a is not None:  # what nobody gets from a clamp is zeros here, as behind a hardtanh
                torch.testing.assert_close(a, torch.zeros_like(a) if e is None else e, rtol=1e-10, atol=1e-12)
        with pytest.raises(RuntimeError, match="not implemented"):
            wk.reference.r1_penalty(critic, x).backward()


def test_batch_norm_and_minibatch_statistics():
    critic = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2), nn.Linear(6, 1)).double()
    assert_as_autograd(critic, points(5, 4))
    assert_as_autograd(critic.eval(), points(5, 4))
    assert_as_autograd(nn.Sequential(critic[:2], critic[3]), points(5, 4))  # linear: nobody asks for the first bias
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


BEHIND_A_CURVE = sys.modules["wgan_kernels.second_order"]._worthwhile_if_smooth


def test_linear_layers_behind_smooth_activations_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(sys.modules["wgan_kernels.second_order"], "_worthwhile_if_smooth", BEHIND_A_CURVE)
    critic = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    names = []
    for layer in critic:
        layer.register_forward_hook(lambda module, args, out: names.append(type(out.grad_fn).__name__))
    assert_as_autograd(critic, points(3, 4))
    behind = ["AddmmBackward0", "PiecewiseLinearBackward", "AddmmBackward0"]
    assert names[:5] == ["ForwardBackward", "TanhBackward0", *behind]


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
