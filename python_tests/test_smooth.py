"""Smooth activations: their curves beside autograd's derivatives, and critics of them as one node."""

import copy

import pytest
import torch
from cases import error
from critics import is_one_node, program_of
from torch import nn
from torch.nn import functional as F

import wgan_kernels as wk
from wgan_kernels.one_pass.smooth import Smooth
from wgan_kernels.rules import smooth

CURVES = {
    "softplus": (smooth.softplus(), F.softplus),
    "steep softplus": (smooth.softplus(3, 5), lambda x: F.softplus(x, 3, 5)),
    "elu": (smooth.elu(), F.elu),
    "elu of another height": (smooth.elu(0.3), lambda x: F.elu(x, 0.3)),
    "selu": (program_of(nn.Sequential(nn.SELU())).steps[0][0].curve, F.selu),
    "celu": (
        program_of(nn.Sequential(nn.CELU(0.5))).steps[0][0].curve,
        lambda x: F.celu(x, 0.5),
    ),  # 1/α in float32
    "silu": (smooth.silu, F.silu),
    "gelu": (smooth.gelu, F.gelu),
    "tanh": (smooth.tanh, torch.tanh),
    "sigmoid": (smooth.sigmoid, torch.sigmoid),
    "hardswish": (smooth.hardswish, F.hardswish),
}


@pytest.mark.parametrize("name", CURVES)
def test_derivatives(name):
    curve, function = CURVES[name]
    x = torch.cat(
        [torch.linspace(-9, 9, 97), torch.tensor([0.0, -0.0, 1e-9, -1e-9, 25.0, -25.0, 100.0, -100.0])]
    ).double()
    t, delta = torch.randn(2, len(x)).double()
    kept = curve.forward(x) if curve.of_result else x
    torch.testing.assert_close(curve.forward(x), function(x), rtol=1e-14, atol=0)
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    torch.testing.assert_close(curve.pullback(delta, kept), delta * slope, rtol=1e-12, atol=1e-14)
    pushed, bent = curve.second(t, delta, kept)
    torch.testing.assert_close(pushed, t * slope, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(bent, t * delta * bend, rtol=1e-12, atol=1e-14)


MODULES = {
    "Tanh": nn.Tanh,
    "Sigmoid": nn.Sigmoid,
    "Softplus": nn.Softplus,
    "steep Softplus": lambda: nn.Softplus(2.0, 3.0),
    "SiLU": nn.SiLU,
    "SiLU in place": lambda: nn.SiLU(inplace=True),
    "GELU": nn.GELU,
    "ELU": nn.ELU,
    "another ELU": lambda: nn.ELU(0.4, inplace=True),
    "SELU": nn.SELU,
    "CELU": lambda: nn.CELU(0.5),
    "Hardswish": nn.Hardswish,
}
BY_AUTOGRAD = {
    "GELU by tanh": lambda: nn.GELU("tanh"),
    "Mish in place": lambda: nn.Mish(inplace=True),
    "LogSigmoid": nn.LogSigmoid,
    "Softsign": nn.Softsign,
}


def critic_of(make):
    layers = nn.Linear(5, 7), make(), nn.Linear(7, 6, bias=False), make(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)
    return nn.Sequential(*layers)


def gradients(of, critic, x):
    """[the penalty, then what each parameter receives]"""
    penalty = of.r1_penalty(critic, x)
    params = list(critic.parameters())
    return [penalty.detach(), *torch.autograd.grad(penalty, params, allow_unused=True)], penalty


@pytest.mark.parametrize("make", [*MODULES.values(), *BY_AUTOGRAD.values()], ids=[*MODULES, *BY_AUTOGRAD])
def test_a_penalty_is_one_node_with_autograds_gradients(make):
    critic, x = critic_of(make).double(), torch.randn(6, 5).double()
    assert any(isinstance(node, Smooth) for node, _ in program_of(critic).steps) is (make in MODULES.values())
    found, penalty = gradients(wk, critic, x)
    assert is_one_node(penalty)
    expected, _ = gradients(wk.reference, critic, x)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) is (theirs is None)
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MODULES)
def test_in_bfloat16(name):
    critic, x = critic_of(MODULES[name]).bfloat16(), torch.randn(64, 5).bfloat16()
    exactly = copy.deepcopy(critic).double()
    truth, _ = gradients(wk.reference, exactly, x.double())
    ours, _ = gradients(wk, critic, x)
    theirs, _ = gradients(wk.reference, critic, x)
    for found, plain, true in zip(ours, theirs, truth, strict=True):
        if true is not None:
            assert found.dtype == torch.bfloat16
            allowed = 2 * error(plain, true) + torch.finfo(torch.bfloat16).eps * (1e-3 + true.abs().max().item())
            assert error(found, true) <= allowed


def test_a_smooth_function_of_an_unknown_kind_has_no_node():
    critic = nn.Sequential(nn.Linear(3, 3), nn.Tanhshrink(), nn.Linear(3, 1)).double()
    x = torch.randn(4, 3).double()
    found, penalty = gradients(wk, critic, x)
    assert not is_one_node(penalty)
    expected, _ = gradients(wk.reference, critic, x)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-10, atol=1e-12)
