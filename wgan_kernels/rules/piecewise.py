"""Piecewise linear layers without a weight: y = A x, where the piece that x lies in decides A.

::

    pullback          δ ↦ Aᵀδ
    pushforward       t ↦ A t

A does not depend on x within a piece. So there is nothing to propagate with respect to x, where PyTorch sends zeros
through a whole backward pass of the critic (pytorch#4952). The parameters at the end of that way, biases above all,
would have received zeros: they receive them directly.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from ._engine import asked_for, leaves_behind


class Maps(NamedTuple):
    """What a kind of layer is made of; ``saved`` is what tells the piece, the result itself where it does.

    forward: x → (y, *saved), y in x's place if asked.
    pullback: (δ, *saved) → like x.
    pushforward: (t, *saved) → like y.
    """

    forward: Callable
    pullback: Callable
    pushforward: Callable


def piecewise(x, maps, in_place=False):
    """The layer, differentiable to any order. ``in_place``: forward has written y over x."""
    return PiecewiseLinear.apply(x, maps, in_place)


class PiecewiseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, maps, in_place):
        y, *saved = maps.forward(x)
        if in_place:
            ctx.mark_dirty(x)
        ctx.save_for_backward(*saved)
        ctx.maps = maps
        return y

    @staticmethod
    def backward(ctx, delta):
        saved = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return ctx.maps.pullback(delta, *saved), None, None
        leaves = leaves_behind(ctx)
        return Adjoint.apply(delta, ctx.maps, len(saved), *(t.detach() for t in saved), *leaves), None, None


class Adjoint(torch.autograd.Function):
    """δ ↦ Aᵀδ. ``leaves``: to whom the derivative with respect to x would have been delivered, all of it zeros."""

    @staticmethod
    def forward(ctx, delta, maps, n, *saved_and_leaves):
        saved, leaves = saved_and_leaves[:n], saved_and_leaves[n:]
        ctx.save_for_backward(*saved)
        ctx.maps, ctx.leaves = maps, [leaf.detach() for leaf in leaves]
        return maps.pullback(delta, *saved)

    @staticmethod
    def backward(ctx, t):
        saved = ctx.saved_tensors
        asked = asked_for(ctx)
        zeros = zeros_for(ctx.leaves, asked[1 + len(saved) :])
        pushed = None
        if asked[0]:
            is_recorded = torch.is_grad_enabled()
            pushed = Tangent.apply(t, ctx.maps, *saved) if is_recorded else ctx.maps.pushforward(t, *saved)
        return pushed, None, None, *[None] * len(saved), *zeros


class Tangent(torch.autograd.Function):
    """t ↦ A t."""

    @staticmethod
    def forward(ctx, t, maps, *saved):
        ctx.save_for_backward(*saved)
        ctx.maps = maps
        return maps.pushforward(t, *saved)

    @staticmethod
    def backward(ctx, delta):
        saved = ctx.saved_tensors
        return Adjoint.apply(delta, ctx.maps, len(saved), *saved), None, *[None] * len(saved)


def zeros_for(leaves, asked):
    """What those leaves receive that the running backward pass asks for."""
    return [torch.zeros_like(leaf) if wanted else None for leaf, wanted in zip(leaves, asked, strict=True)]
