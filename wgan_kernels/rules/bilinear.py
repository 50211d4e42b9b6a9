"""Layers that are linear in their input and in their weight: y = F(x, w) + b.

Three maps belong to such a layer, each linear in both arguments::

    forward          y = F(x, w)
    pullback         P(δ, w) = (∂F/∂x)ᵀ δ        the input gradient
    weight gradient  G(x, δ) = (∂F/∂w)ᵀ δ

and they are closed under differentiation. For a cotangent of each map's result:

=====================  =====================  =====================
cotangent δ of F(x,w)  cotangent t of P(δ,w)  cotangent v of G(x,δ)
=====================  =====================  =====================
∂x: P(δ, w)            ∂δ: F(t, w)            ∂x: P(δ, v)
∂w: G(x, δ)            ∂w: G(t, δ)            ∂δ: F(x, v)
=====================  =====================  =====================

The middle column is what a gradient penalty runs through: a forward pass of t without bias, the backend's own weight
gradient of the pair (t, δ), and nothing for x, on which P does not depend. Derivatives of every order are further rows
of the same table.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from ._engine import asked_for


class Maps(NamedTuple):
    """What a kind of layer is made of.

    forward: (x, w, b or None, how) → y.
    pullback: (δ, w, x, how) → like x, of which it reads shape and strides alone.
    weight_gradient: (x, δ, w, how) → like w, likewise.
    bias_gradient: (δ, how) → like b, differentiable.
    gradients: (x, δ, w, how, asked) → the three at once or None each, where a backend's kernel shares work.
    """

    forward: Callable
    pullback: Callable
    weight_gradient: Callable
    bias_gradient: Callable
    gradients: Callable | None = None


def bilinear(maps):
    """The layer (x, w, b, how) → y as a function differentiable to any order."""
    forward, pullback, weight_gradient, bias_gradient, gradients = maps

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w, b, how):
            ctx.save_for_backward(x, w)
            ctx.how = how
            ctx.has_weight = True
            return forward(x, w, b, how)

        @staticmethod
        def backward(ctx, delta):
            x, w = ctx.saved_tensors
            asked = [*asked_for(ctx), False][:3]  # without a bias there are two arguments
            if gradients is not None and not torch.is_grad_enabled():
                return *gradients(x, delta, w, ctx.how, asked), None
            return (
                Pullback.apply(delta, w, x.detach(), ctx.how) if asked[0] else None,
                WeightGradient.apply(x, delta, w.detach(), ctx.how) if asked[1] else None,
                bias_gradient(delta, ctx.how) if asked[2] else None,
                None,
            )

    class Pullback(torch.autograd.Function):
        @staticmethod
        def forward(ctx, delta, w, like_x, how):
            ctx.save_for_backward(delta, w)
            ctx.how = how
            return pullback(delta, w, like_x, how)

        @staticmethod
        def backward(ctx, t):
            delta, w = ctx.saved_tensors
            asked = asked_for(ctx)
            if not torch.is_grad_enabled():  # a Function of its own would cost as much as a small layer
                return (
                    forward(t, w, None, ctx.how) if asked[0] else None,
                    weight_gradient(t, delta, w, ctx.how) if asked[1] else None,
                    None,
                    None,
                )
            return (
                Forward.apply(t, w, None, ctx.how) if asked[0] else None,
                WeightGradient.apply(t, delta, w.detach(), ctx.how) if asked[1] else None,
                None,
                None,
            )

    class WeightGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, delta, like_w, how):
            ctx.save_for_backward(x, delta)
            ctx.how = how
            return weight_gradient(x, delta, like_w, how)

        @staticmethod
        def backward(ctx, v):
            x, delta = ctx.saved_tensors
            asked = asked_for(ctx)
            return (
                Pullback.apply(delta, v, x.detach(), ctx.how) if asked[0] else None,
                Forward.apply(x, v, None, ctx.how) if asked[1] else None,
                None,
                None,
            )

    return Forward.apply
