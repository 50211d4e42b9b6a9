"""Batch normalisation: y = x̂·w + b for each channel of x [B, channels, …], w and b [channels] or None.

In evaluation x̂ = (x − running mean)·r, so that the layer is linear in x and nothing is propagated with respect to it.

In training x̂ = (x − μ)·r, r = 1/√(var + eps), with the batch's own μ and var. With means over batch and pixels, of n
elements, the pullback is w·P(δ)::

    P(δ) = r·(δ − mean(δ) − x̂·mean(δ·x̂))

P is linear and its own adjoint, and it depends on x. For a cotangent t of the pullback::

    ∂δ = w·P(t)
    ∂w = Σ δ·P(t)
    ∂x = −w·r·(a·P(δ) + b·P(t) + c·x̂),    a = mean(t·x̂), b = mean(δ·x̂), c = mean(δ·P(t))

as for LayerNorm (rules/norm.py), where a and b, one number for each channel here, are taken out of P. The fused
backward kernel computes P(t) and a in one call, P(δ) and b in another: a penalty of a critic with two of them takes 163
operators instead of 291.
"""

import torch
import torch.nn.functional as F

from ._engine import asked_for

aten = torch.ops.aten


class BatchNorm(torch.autograd.Function):
    """In training; ``running``: (mean, var), updated once, or (None, None)."""

    @staticmethod
    def forward(ctx, x, w, b, running, momentum, eps):
        y, mean, rstd = forward(x, w, b, running, momentum, eps)
        ctx.save_for_backward(x, w, mean, rstd)
        ctx.eps = eps
        ctx.has_weight = w is not None
        return y

    @staticmethod
    def backward(ctx, delta):
        x, w, mean, rstd = ctx.saved_tensors
        x_asked, w_asked, b_asked = _of_three(asked_for(ctx), w)
        if not torch.is_grad_enabled():
            return *pullback(delta, x, w, mean, rstd, ctx.eps, [x_asked, w_asked, b_asked]), None, None, None
        return (
            Pullback.apply(delta, x, w, mean, rstd, ctx.eps) if x_asked else None,
            _sum(delta * _normalised(x, mean, rstd, ctx.eps)) if w_asked else None,
            _sum(delta) if b_asked else None,
            None,
            None,
            None,
        )


class Pullback(torch.autograd.Function):
    """w·P(δ)."""

    @staticmethod
    def forward(ctx, delta, x, w, mean, rstd, eps):
        ctx.save_for_backward(delta, x, w, mean, rstd)
        ctx.eps = eps
        return pullback(delta, x, w, mean, rstd, eps, [True, False, False])[0]

    @staticmethod
    def backward(ctx, t):
        delta, x, w, mean, rstd = ctx.saved_tensors
        asked = _of_three(asked_for(ctx)[1:], w)
        asked = asked_for(ctx)[0], *asked[:2]
        return *second(t, delta, x, w, mean, rstd, ctx.eps, asked), None, None, None


def forward(x, w, b, running, momentum, eps):
    """(y, μ, r)"""
    return aten.native_batch_norm(x, w, b, *running, True, momentum, eps)


def pullback(delta, x, w, mean, rstd, eps, asked):
    """(w·P(δ), Σ δ·x̂, Σ δ), as far as asked."""
    return aten.native_batch_norm_backward(delta, x, w, None, None, mean, rstd, True, eps, asked)


def second(t, delta, x, w, mean, rstd, eps, asked=(True, True, True)):
    """What δ, x and w receive of ⟨t, w·P(δ)⟩, as far as asked."""
    delta_asked, x_asked, w_asked = asked
    p, a = _projected(t, x, mean, rstd, eps)
    delta_grad = x_grad = None
    if delta_asked:
        delta_grad = p if w is None else p * _channels(w, x)
    c = _sum(delta * p) if x_asked or w_asked else None
    if x_asked:
        q, b = _projected(delta, x, mean, rstd, eps)
        mean, r = _statistics(x, mean, rstd, eps)
        outer = -r if w is None else -r * _channels(w, x)
        slope = outer * r * _channels(c / (x.numel() // x.shape[1]), x)
        x_grad = torch.addcmul(-mean * slope, x, slope).addcmul(q, outer * a).addcmul(p, outer * b)
    return delta_grad, x_grad, c if w_asked else None


def _projected(g, x, mean, rstd, eps):
    """(P(g), mean(g·x̂)), as functions of g and x where derivatives of a higher order are recorded."""
    n = x.numel() // x.shape[1]
    if not torch.is_grad_enabled():
        p, total, _ = pullback(g, x, torch.ones_like(mean), mean, rstd, eps, [True, True, False])
        return p, _channels(total / n, x)
    normalised, (_, r) = _normalised(x, mean, rstd, eps), _statistics(x, mean, rstd, eps)
    mean_g, a = _channels(_sum(g) / n, x), _channels(_sum(g * normalised) / n, x)
    return r * (g - mean_g - normalised * a), a


def _normalised(x, mean, rstd, eps):
    mean, r = _statistics(x, mean, rstd, eps)
    return (x - mean) * r


def _statistics(x, mean, rstd, eps):
    """(μ, r) to multiply with x, likewise."""
    if torch.is_grad_enabled():
        every = _all_but_channels(x)
        mean, rstd = x.mean(every), (x.var(every, correction=0) + eps).rsqrt()
    return _channels(mean, x), _channels(rstd, x)


def _sum(x):
    return x.sum(_all_but_channels(x))


def _all_but_channels(x):
    return (0, *range(2, x.dim()))


def _channels(v, x):
    return v.view(-1, *[1] * (x.dim() - 2))


def _of_three(asked, w):
    """Of x, w and b, where w, and b behind it, may be None."""
    x_asked, *rest = asked
    return [x_asked, *([False, *rest] if w is None else rest), False][:3]


def serves(x, *others):
    """Whether all is float32 or all float64, and there is more than one element to normalise."""
    dtypes = {t.dtype for t in (x, *others) if t is not None}
    if len(dtypes) > 1 or dtypes.isdisjoint({torch.float32, torch.float64}):
        return False
    return x.dim() > 1 and x.numel() > x.shape[1]


def _batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if not serves(input, running_mean, running_var, weight, bias):
        return None
    if training:
        return BatchNorm.apply(input, weight, bias, (running_mean, running_var), momentum, eps)
    if running_mean is None or running_var is None:
        return None
    scale = (running_var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale
    if bias is not None:
        shift = shift + bias
    return torch.addcmul(_channels(shift, input), input, _channels(scale, input))


ROUTES = {F.batch_norm: _batch_norm}
