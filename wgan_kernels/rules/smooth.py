"""Smooth activations, y = φ(x): softplus, SiLU, GELU, ELU and its kin, tanh, sigmoid, and hard-swish, which has
curvature between its kinks.

::

    pullback                 δ ↦ φ′(x)·δ
    of it, cotangent t:      ∂δ = φ′(x)·t,    ∂x = φ″(x)·δ·t      the curvature

Here the pass that follows is needed; what PyTorch adds are elementwise kernels: its second derivatives of softplus,
SiLU, ELU and hard-swish are composites of nine, ten, seven and eight of them, where four, nine (five in place), four
and four do. Of the calls of a critic tanh and sigmoid, which keep their result alone and take five there, and GELU
are PyTorch's: a rule gained 0 to 7%, and nothing. A program has no graph, and takes them all.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ._engine import asked_for

aten = torch.ops.aten


class Curve(NamedTuple):
    """forward: x → φ(x); pullback: (δ, x) → φ′·δ; second: (t, δ, x) → (φ′·t, φ″·δ·t).

    of_result: the latter two are given φ(x) in the place of x. name: of one that kernels know, too.
    """

    forward: Callable
    pullback: Callable
    second: Callable
    of_result: bool = False
    name: str | None = None

    def pullback_onto(self, bent, delta, x):
        """bent + φ′·δ, perhaps where bent is."""
        return bent.add_(self.pullback(delta, x))


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


def _softplus_second(t, delta, x, beta, threshold):
    """φ′ = s, φ″ = β·s(1 − s) with the sigmoid s of β·x, 1 beyond the threshold."""
    slope = aten.softplus_backward(torch.ones_like(x[:1]).expand_as(x), x, beta, threshold)
    pushed = t * slope
    bend = torch.addcmul(pushed, pushed, slope, value=-1).mul_(delta)
    return pushed, bend if beta == 1 else bend.mul_(beta)


@functools.lru_cache(maxsize=1024)
def softplus(beta=1, threshold=20):
    """log(1 + e^(β·x))/β, x beyond the threshold."""
    return Curve(
        lambda x: F.softplus(x, beta, threshold),
        lambda delta, x: aten.softplus_backward(delta, x, beta, threshold),
        lambda t, delta, x: _softplus_second(t, delta, x, beta, threshold),
        name="softplus" if (beta, threshold) == (1, 20) else None,
    )


@functools.lru_cache(maxsize=1024)
def elu(alpha=1.0, scale=1.0, input_scale=1.0):
    """scale·x where x > 0, else scale·α·(e^(input_scale·x) − 1): ELU, SELU and CELU."""

    def pullback(delta, x):
        return aten.elu_backward(delta, alpha, scale, input_scale, False, x)

    def second(t, delta, x):
        """φ″ = input_scale·φ′ where x < 0, else 0."""
        pushed = pullback(t, x)
        bend = (pushed * delta).masked_fill_(x >= 0, 0)
        return pushed, bend if input_scale == 1 else bend.mul_(input_scale)

    name = "elu" if alpha == scale == input_scale == 1 else None
    return Curve(lambda x: aten.elu(x, alpha, scale, input_scale), pullback, second, name=name)


def _silu_second(t, delta, x):
    """φ″ = s(1 − s)(2 + x(1 − 2s)) with the sigmoid s."""
    s = torch.sigmoid(x)
    bend = aten.sigmoid_backward(t * delta, s)
    return aten.silu_backward(t, x), bend.mul_(s.mul_(-2).add_(1).mul_(x).add_(2))


def _gelu_second(t, delta, x):
    """φ″ = (2 − x²)·e^(−x²/2)/√(2π)."""
    square = x.square()
    density = square.mul(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    return aten.gelu_backward(t, x), square.neg_().add_(2).mul_(density).mul_(t).mul_(delta)


def _tanh_second(t, delta, y):
    """φ′ = 1 − y², φ″ = −2y·φ′."""
    pushed = aten.tanh_backward(t, y)
    return pushed, (y * pushed).mul_(delta).mul_(-2)


def _sigmoid_second(t, delta, y):
    """φ′ = y(1 − y), φ″ = (1 − 2y)·φ′."""
    pushed = aten.sigmoid_backward(t, y)
    return pushed, (1 - 2 * y).mul_(pushed).mul_(delta)


def _hardswish_second(t, delta, x):
    """φ″ = 1/3 where |x| < 3, else 0."""
    return aten.hardswish_backward(t, x), aten.hardtanh_backward(t * delta, x, -3, 3).div_(3)


silu = Curve(F.silu, aten.silu_backward.default, _silu_second, name="silu")
gelu = Curve(F.gelu, lambda delta, x: aten.gelu_backward(delta, x), _gelu_second, name="gelu")
tanh = Curve(torch.tanh, aten.tanh_backward.default, _tanh_second, of_result=True, name="tanh")
sigmoid = Curve(torch.sigmoid, aten.sigmoid_backward.default, _sigmoid_second, of_result=True, name="sigmoid")
hardswish = Curve(F.hardswish, aten.hardswish_backward.default, _hardswish_second)
# Of a function its curve, by what it is called with beside x; None where there is none.
CURVES = {
    torch.tanh: lambda: tanh,
    F.tanh: lambda: tanh,
    torch.sigmoid: lambda: sigmoid,
    F.sigmoid: lambda: sigmoid,
    F.softplus: lambda beta=1, threshold=20: softplus(beta, threshold),
    F.silu: lambda inplace=False: silu,
    F.gelu: lambda approximate="none": gelu if approximate == "none" else None,
    F.elu: lambda alpha=1.0, inplace=False: elu(alpha),
}


def _smooth(x, curve):
    """Not in half types, in which PyTorch rounds in other places, and under autocast computes some in float32."""
    return Smooth.apply(x, curve) if x.dtype in (torch.float32, torch.float64) and x.dim() > 0 else None


def _softplus(input, beta=1, threshold=20):
    return _smooth(input, softplus()) if beta == 1 and threshold == 20 else None


def _silu(input, inplace=False):
    return None if inplace else _smooth(input, silu)


def _elu(input, alpha=1.0, inplace=False):
    return None if inplace or alpha != 1 else _smooth(input, elu())


def _hardswish(input, inplace=False):
    return None if inplace else _smooth(input, hardswish)


ROUTES = {F.softplus: _softplus, F.silu: _silu, F.elu: _elu, F.hardswish: _hardswish}
