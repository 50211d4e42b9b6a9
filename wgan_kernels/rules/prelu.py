"""PReLU: y = x where x > 0, w·x elsewhere, with a learnt slope w, one for all channels or one for each.

Linear in x within a piece and in w, so that there is nothing to propagate with respect to x::

    pullback          P(δ, w) = δ·(1 where x > 0, w elsewhere)
    weight gradient   G(x, δ) = Σ δ·x where x ≤ 0
    of P, cotangent t:    ∂δ = P(t, w),    ∂w = G(t, δ),    ∂x: none
"""

import torch

from ._engine import asked_for, leaves_behind
from .piecewise import zeros_for

aten = torch.ops.aten


class PReLU(torch.autograd.Function):
    """x: [B, channels, …]; w: [1, channels or 1, 1…]."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        ctx.has_weight = True
        return forward(x, w)

    @staticmethod
    def backward(ctx, delta):
        x, w = ctx.saved_tensors
        if not torch.is_grad_enabled():
            x_grad, w_grad = aten._prelu_kernel_backward(delta, x, w)
            return x_grad, w_grad.sum_to_size(w.shape)
        x_asked, w_asked = asked_for(ctx)
        return (
            Pullback.apply(delta, w, x.detach(), *leaves_behind(ctx)) if x_asked else None,
            weight_gradient(x, delta, x, w) if w_asked else None,
        )


class Pullback(torch.autograd.Function):
    """P(δ, w). ``leaves``: to whom the derivative with respect to x would have been delivered, all of it zeros."""

    @staticmethod
    def forward(ctx, delta, w, x, *leaves):
        ctx.save_for_backward(delta, w, x)
        ctx.leaves = [leaf.detach() for leaf in leaves]
        return pullback(delta, x, w)

    @staticmethod
    def backward(ctx, t):
        delta, w, x = ctx.saved_tensors
        delta_asked, w_asked, _, *asked = asked_for(ctx)
        return (
            Pullback.apply(t, w, x) if delta_asked else None,
            weight_gradient(t, delta, x, w) if w_asked else None,
            None,
            *zeros_for(ctx.leaves, asked),
        )


def forward(x, w):
    return aten._prelu_kernel(x, w)


def pullback(delta, x, w):
    """P(δ, w)."""
    return aten._prelu_kernel_backward(delta, x, w)[0]


def weight_gradient(z, delta, x, w):
    """G(z, δ), in the piece that x lies in."""
    return (z * delta).masked_fill(x > 0, 0).sum_to_size(w.shape)


def takes(x, weight):
    return x.dim() >= 2 and weight.dtype is x.dtype and weight.numel() in (1, x.shape[1])


def for_channels(weight, x):
    return weight.reshape(1, -1, *[1] * (x.dim() - 2))


def _prelu(input, weight):
    return PReLU.apply(input, for_channels(weight, input)) if takes(input, weight) else None


ROUTES = {torch.prelu: _prelu}
