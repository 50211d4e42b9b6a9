"""Piecewise linear activations: y = φ(x) with a slope that depends on the piece alone.

The pullback δ ↦ φ′·δ is linear, its own adjoint, and does not depend on x within a piece. So there is nothing to
propagate with respect to x, where PyTorch sends zeros through a whole backward pass of the critic (pytorch#4952). The
parameters at the end of that way, biases above all, would have received zeros: they receive them directly.
"""

import torch

from ._engine import asked_for, leaves_behind

aten = torch.ops.aten


class PiecewiseLinear(torch.autograd.Function):
    """y = forward(x). ``pullback``: (δ, y) → φ′·δ, told by the result; ``in_place``: forward has written y over x."""

    @staticmethod
    def forward(ctx, x, forward, pullback, in_place):
        y = forward(x)
        if in_place:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.pullback = pullback
        return y

    @staticmethod
    def backward(ctx, delta):
        (y,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return ctx.pullback(delta, y), None, None, None
        return Slope.apply(delta, y.detach(), ctx.pullback, *leaves_behind(ctx)), None, None, None


class Slope(torch.autograd.Function):
    """δ ↦ φ′·δ. ``leaves``: to whom the derivative with respect to x would have been delivered, all of it zeros."""

    @staticmethod
    def forward(ctx, delta, y, pullback, *leaves):
        ctx.save_for_backward(y)
        ctx.pullback = pullback
        ctx.leaves = [leaf.detach() for leaf in leaves]
        return pullback(delta, y)

    @staticmethod
    def backward(ctx, t):
        (y,) = ctx.saved_tensors
        delta_asked, _, *asked = asked_for(ctx)
        zeros = (torch.zeros_like(leaf) if wanted else None for leaf, wanted in zip(ctx.leaves, asked, strict=True))
        return Slope.apply(t, y, ctx.pullback) if delta_asked else None, None, None, *zeros


def relu(x, in_place=False):
    """max(0, x)."""
    return PiecewiseLinear.apply(x, torch.relu_ if in_place else torch.relu, _relu_pullback, in_place)


def _relu_pullback(delta, y):
    return aten.threshold_backward(delta, y, 0)


def leaky_relu(x, slope, in_place=False):
    """x where x > 0, slope·x elsewhere; slope ≥ 0, so that the result tells the piece."""

    def forward(x):
        return (aten.leaky_relu_ if in_place else aten.leaky_relu)(x, slope)

    def pullback(delta, y):
        return aten.leaky_relu_backward(delta, y, slope, True)

    return PiecewiseLinear.apply(x, forward, pullback, in_place)


def hardtanh(x, low, high, in_place=False):
    """min(max(x, low), high)."""

    def forward(x):
        return (aten.hardtanh_ if in_place else aten.hardtanh)(x, low, high)

    def pullback(delta, y):
        return aten.hardtanh_backward(delta, y, low, high)

    return PiecewiseLinear.apply(x, forward, pullback, in_place)
