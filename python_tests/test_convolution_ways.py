"""Who serves a convolution is asked once for tensors of a kind; and where its images lie beside a large kernel."""

import copy

import pytest
import torch
from convolutions import geometry, last
from critic_steps import assert_same_update, steps
from torch import nn

import wgan_kernels as wk
from wgan_kernels import _dispatch
from wgan_kernels.one_pass import trace_step
from wgan_kernels.rules import _aten, conv

X, W = last(torch.randn(2, 8, 6, 6)), torch.randn(5, 8, 3, 3)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture
def asked(monkeypatch):
    """The sweeps that anyone was asked about."""
    sweeps, ask = [], conv._asked
    monkeypatch.setattr(conv, "_ways", {})
    monkeypatch.setattr(conv, "_asked", lambda x, w, how, sweep: sweeps.append(sweep) or ask(x, w, how, sweep))
    return sweeps


def test_once_for_each_sweep(asked):
    for _ in range(3):
        y = conv.MAPS.forward(X, W, None, geometry())
        conv.MAPS.pullback(y, W, X, geometry())
        conv.MAPS.weight_gradient(X, y, W, geometry())
        conv.MAPS.gradients(X, y, W, geometry(), (True, True, True))
    assert asked == ["forward", "pullback", "weights"]


OTHERS = {
    "samples": (X[:1], W, geometry()),
    "memory": (X.contiguous(), W, geometry()),
    "dtype": (X.double(), W.double(), geometry()),
    "channels": (X, W[:4], geometry()),
    "geometry": (X, W, geometry(stride=1)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_again_for_others(asked, other):
    for x, w, how in ((X, W, geometry()), OTHERS[other], (X, W, geometry()), OTHERS[other]):
        conv.MAPS.forward(x, w, None, how)
    assert asked == ["forward", "forward"]


def test_again_where_kernels_are_not_to_run(asked, monkeypatch):
    monkeypatch.setattr(_dispatch, "takes_compiled", lambda device: _dispatch.requested() == "auto")
    monkeypatch.setattr(_dispatch, "has_vectors", lambda: True)
    for _ in range(2):
        conv.MAPS.forward(X, W, None, geometry())
        with wk.use_backend("reference"):
            conv.MAPS.forward(X, W, None, geometry())
    assert asked == ["forward", "forward"]


def test_a_compiler_asks_each_time(asked, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for _ in range(2):
        assert conv._way(X, W, geometry(), "forward") is _aten
    assert len(asked) == 2 and not conv._ways


def test_not_without_end(asked, monkeypatch):
    monkeypatch.setattr(conv, "_MOST", 3)
    for samples in range(1, 12):
        conv.MAPS.forward(last(torch.randn(samples, 8, 6, 6)), W, None, geometry())
        assert 1 <= len(conv._ways) <= 3


def test_nobody_else_on_another_device(asked):
    assert conv._way(X.to("meta"), W.to("meta"), geometry(), "forward") is _aten and not asked


def critic(*behind, activation=nn.LeakyReLU):
    """Of images of 8×8, whose second kernel outweighs what one of them has become by 18 to 1, the third by 72 to 1."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1),
        activation(),
        nn.Conv2d(4, 32, 3, 2, 1),
        *behind,
        activation(),
        nn.Conv2d(32, 32, 3, 1, 1),
        activation(),
        nn.Flatten(),
        nn.Linear(128, 1),
    ).double()


CRITICS = {
    "piecewise": critic,
    "smooth": lambda: critic(activation=nn.Tanh),
    "norm": lambda: critic(nn.GroupNorm(4, 32), activation=nn.SiLU),
    "pool": lambda: critic(nn.AvgPool2d(3, 1, 1)),
    "in channels-last memory": lambda: critic().to(memory_format=torch.channels_last),
    "frozen": lambda: critic().requires_grad_(False).append(nn.Linear(1, 1).double()),
}


@pytest.mark.parametrize("samples", [1, 2, 9])
@pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)
def test_penalties_of_few_samples(make, samples):
    ours = make()
    spec = copy.deepcopy(ours)
    real, fake = torch.randn(2, samples, 2, 8, 8, dtype=torch.float64)
    eps = torch.rand(samples, dtype=torch.float64)
    found = wk.gradient_penalty(ours, real, fake, eps=eps)
    expected = wk.reference.gradient_penalty(spec, real, fake, eps=eps)
    torch.testing.assert_close(found, expected, **EXACT)
    found.backward()
    expected.backward()
    for param, other in zip(ours.parameters(), spec.parameters(), strict=True):
        assert (param.grad is None) == (other.grad is None)
        if param.grad is not None:
            torch.testing.assert_close(param.grad, other.grad, **EXACT)
            assert param.grad.stride() == other.grad.stride()


@pytest.mark.parametrize("make", [critic, CRITICS["smooth"], CRITICS["norm"]], ids=["piecewise", "smooth", "norm"])
def test_steps_of_few_samples(make):
    real, fake = torch.randn(2, 1, 2, 8, 8, dtype=torch.float64)
    ours, spec = steps(make())
    ours._way.program.is_channels_last = lambda: True  # so that images come so
    assert_same_update(ours, spec, real, fake)


TAKEN_OUT = {1: [None, torch.channels_last, None], 9: [None, None, None]}  # then there is nothing to take out


@pytest.mark.parametrize("samples", TAKEN_OUT)
def test_the_larger_of_both_stays_where_it_is(samples):
    nodes = [node for node, _ in trace_step(critic()).program.steps if node.what == "Conv2d"]
    x = last(torch.randn(samples, 2, 8, 8, dtype=torch.float64))
    for node in nodes:
        x = node.forward(0, x)
    assert [node.memory for node in nodes] == TAKEN_OUT[samples]
    assert [node.weight.is_contiguous() for node in nodes] == [False, samples == 1, samples == 1]
