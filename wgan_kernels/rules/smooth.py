"""Smooth activations, y = φ(x): softplus, SiLU, ELU, and hard-swish, which has curvature between its kinks.

::

    pullback                 δ ↦ φ′(x)·δ
    of it, cotangent t:      ∂δ = φ′(x)·t,    ∂x = φ″(x)·δ·t      the curvature

Here the pass that follows is needed; what PyTorch adds are elementwise kernels: its second derivatives are composites
of nine, ten, seven and eight of them, where four, nine (five in place), four and four do. tanh and sigmoid keep their
result alone and take five, where a rule gained 0 to 7%; a rule for GELU was no faster.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ._engine import asked_for

aten = torch.ops.aten


class Curve(NamedTuple):
    """forward: x → φ(x); pullback: (δ, x) → φ′·δ; second: (t, δ, x) → (φ′·t, φ″·δ·t)."""

    forward: Callable
    pullback: Callable
    second: Callable


class Smooth(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, curve):
        ctx.save_for_backward(x)
        ctx.curve = curve
        return curve.forward(x)

    @staticmethod
    def backward(ctx, delta):
        (x,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return ctx.curve.pullback(delta, x), None
        return Pullback.apply(delta, x, ctx.curve), None


class Pullback(torch.autograd.Function):
    @staticmethod
    def forward(ctx, delta, x, curve):
        ctx.save_for_backward(delta, x)
        ctx.curve = curve
        return curve.pullback(delta, x)

    @staticmethod
    def backward(ctx, t):
        delta, x = ctx.saved_tensors
        delta_asked, x_asked = asked_for(ctx)
        if torch.is_grad_enabled():
            slope, bend = _derivatives(ctx.curve.forward, x)
            return t * slope if delta_asked else None, t * delta * bend if x_asked else None, None
        if not x_asked:
            return ctx.curve.pullback(t, x), None, None
        return *ctx.curve.second(t, delta, x), None


def _derivatives(function, x):
    """(φ′, φ″) by PyTorch, as functions of x."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return slope, bend


def _softplus_second(t, delta, x):
    """φ′ = s, φ″ = s(1 − s) with the sigmoid s, 1 beyond the threshold."""
    slope = aten.softplus_backward(torch.ones_like(x[:1]).expand_as(x), x, 1, 20)
    pushed = t * slope
    return pushed, torch.addcmul(pushed, pushed, slope, value=-1).mul_(delta)


def _silu_second(t, delta, x):
    """φ″ = s(1 − s)(2 + x(1 − 2s)) with the sigmoid s."""
    s = torch.sigmoid(x)
    bend = aten.sigmoid_backward(t * delta, s)
    return aten.silu_backward(t, x), bend.mul_(s.mul_(-2).add_(1).mul_(x).add_(2))


def _elu_second(t, delta, x):
    """φ″ = φ′ = e^x where x ≤ 0, else 0 and 1."""
    pushed = _elu_pullback(t, x)
    return pushed, (pushed * delta).masked_fill_(x > 0, 0)


def _elu_pullback(delta, x):
    return aten.elu_backward(delta, 1, 1, 1, False, x)


def _hardswish_second(t, delta, x):
    """φ″ = 1/3 where |x| < 3, else 0."""
    return aten.hardswish_backward(t, x), aten.hardtanh_backward(t * delta, x, -3, 3).div_(3)


_SOFTPLUS = Curve(F.softplus, lambda delta, x: aten.softplus_backward(delta, x, 1, 20), _softplus_second)
_SILU = Curve(F.silu, aten.silu_backward.default, _silu_second)
_ELU = Curve(F.elu, _elu_pullback, _elu_second)
_HARDSWISH = Curve(F.hardswish, aten.hardswish_backward.default, _hardswish_second)


def _smooth(x, curve):
    """Not in half types, in which PyTorch rounds in other places, and under autocast computes some in float32."""
    return Smooth.apply(x, curve) if x.dtype in (torch.float32, torch.float64) and x.dim() > 0 else None


def _softplus(input, beta=1, threshold=20):
    return _smooth(input, _SOFTPLUS) if beta == 1 and threshold == 20 else None


def _silu(input, inplace=False):
    return None if inplace else _smooth(input, _SILU)


def _elu(input, alpha=1.0, inplace=False):
    return None if inplace or alpha != 1 else _smooth(input, _ELU)


def _hardswish(input, inplace=False):
    return None if inplace else _smooth(input, _HARDSWISH)


ROUTES = {F.softplus: _softplus, F.silu: _silu, F.elu: _elu, F.hardswish: _hardswish}
