"""Which critics take the kernels of perceptrons, and which their layers."""

import pytest
import torch
from cases import needs_compiled
from perceptrons import Counting, frozen, perceptron
from torch import nn
from torch.nn.utils import prune

import wgan_kernels as wk
from wgan_kernels import _dispatch

pytestmark = [needs_compiled, pytest.mark.usefixtures("vectors")]


def with_strided_weight():
    critic = perceptron(4, 8, 1)
    critic[0].weight = nn.Parameter(torch.randn(4, 8).t())
    return critic


def with_bias(bias):
    critic = perceptron(4, 8, 1)
    critic[0].bias = nn.Parameter(bias)
    return critic


NOT_SERVED = {
    "double": lambda: perceptron(4, 8, 1).double(),
    "a frozen weight": lambda: frozen(perceptron(4, 8, 1), "0.weight"),
    "one layer": lambda: perceptron(4, 1),
    "another curve": lambda: nn.Sequential(nn.Linear(4, 8), nn.Hardswish(), nn.Linear(8, 1)),
    "a steep curve": lambda: nn.Sequential(nn.Linear(4, 8), nn.Softplus(2.0), nn.Linear(8, 1)),
    "an activation first": lambda: nn.Sequential(nn.ReLU(), *perceptron(4, 8, 1)),
    "two activations": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
    "a bounded activation": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 1)),
    "a norm": lambda: nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)),
    "weights in other memory": with_strided_weight,
    "a bias in other memory": lambda: with_bias(torch.randn(16)[::2]),
    "a bias for all": lambda: with_bias(torch.randn(1)),
    "a negated bias": lambda: with_bias(torch._neg_view(torch.randn(8))),
    "no features": lambda: perceptron(4, 0, 1),
    "a hook": lambda: hooked(perceptron(4, 8, 1)),
    "a pruned weight": lambda: pruned(perceptron(4, 8, 1)),
}


def hooked(critic):
    critic[0].register_forward_hook(lambda module, args, y: y)
    return critic


def pruned(critic):
    prune.identity(critic[0], "weight")
    return critic


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", NOT_SERVED)
def test_others_are_not_served(name):
    critic = NOT_SERVED[name]()
    dtype = next(critic.parameters()).dtype
    real = torch.randn(9, 4, dtype=dtype)
    with Counting() as seen:
        wk.r1_penalty(critic, real).backward()
    assert seen.seen == []
    trained = [param for param in critic.parameters() if param.requires_grad]
    penalty = wk.reference.r1_penalty(critic, real)
    torch.testing.assert_close(wk.r1_penalty(critic, real), penalty)
    expected = torch.autograd.grad(penalty, trained, allow_unused=True)
    for param, theirs in zip(trained, expected, strict=True):
        if param.grad is not None and theirs is not None:
            torch.testing.assert_close(param.grad, theirs, rtol=1e-4, atol=1e-6)


# Each sample takes the place of 32, unless there are enough of them.
@pytest.mark.parametrize(("width", "batch", "is_served"), [(8, 1, True), (600, 2, False), (600, 12, True)])
def test_few_samples_of_a_wide_critic_take_its_layers(width, batch, is_served):
    with Counting() as seen:
        wk.r1_penalty(perceptron(width, width, width, 1), torch.randn(batch, width)).backward()
    assert bool(seen.seen) is is_served


def test_sequences_of_samples_take_their_layers():
    critic = perceptron(4, 8, 1)  # of each of three parts of a sample
    real = torch.randn(9, 3, 4)
    with Counting() as seen:
        torch.testing.assert_close(wk.r1_penalty(critic, real), wk.reference.r1_penalty(critic, real))
    assert seen.seen == []


def test_what_surrounds_a_critic_bars_the_kernels():
    critic, real = perceptron(4, 8, 1), torch.randn(9, 4)
    with Counting() as seen:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            wk.r1_penalty(critic, real).backward()
        with wk.use_backend("reference"):
            wk.r1_penalty(critic, real).backward()
    assert seen.seen == []


def test_a_machine_without_vectors(monkeypatch):
    monkeypatch.setattr(_dispatch, "has_vectors", lambda: False)
    with Counting() as seen:
        wk.r1_penalty(perceptron(4, 8, 1), torch.randn(9, 4)).backward()
    assert seen.seen == []
