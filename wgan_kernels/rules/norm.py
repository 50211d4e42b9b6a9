"""Normalisation of each sample by its own statistics: LayerNorm, GroupNorm, InstanceNorm, RMSNorm.

x is seen as rows of n elements, each of which is normalised by itself::

    y = x̂·w + b,    x̂ = (x − μ)·r,    r = 1/√(var + eps)

With g = δ·w and means over a row, the pullback is::

    P(g) = r·(g − mean(g) − x̂·mean(g·x̂))

It is linear in g and its own adjoint, and it depends on x. For a cotangent t of it, and p = P(t)::

    ∂δ = w·p
    ∂w = Σ δ·p                                    over the rows that share w
    ∂x = r·P(u) − r·x̂·mean(g·p),    u = −mean(t·x̂)·g − mean(g·x̂)·t

from ∂r = −r²·x̂/n for the second term, and for the first ∂/∂x̂ of ⟨t, P(g)⟩/r, pulled back through x̂(x): P again. Since
mean(u) = −mean(t·x̂)·mean(g) − mean(g·x̂)·mean(t) and mean(u·x̂) = −2·mean(t·x̂)·mean(g·x̂), it needs the row's means of
t, t·x̂, g, g·x̂ and t·g alone, and one more pass over the row::

    ∂x = r²·(x̂·bend − mean(t·x̂)·(g − mean(g)) − mean(g·x̂)·(t − mean(t)))
    bend = 3·mean(t·x̂)·mean(g·x̂) + mean(t)·mean(g) − mean(t·g)

RMSNorm has μ = 0 and drops mean(g), mean(t) and mean(u). Kernels to the second derivative, plain PyTorch beyond.

PyTorch's own second derivative is a composite: for the penalty of a norm and a tanh it dispatches 107 operators with
LayerNorm, 126 with GroupNorm, 140 with InstanceNorm and 71 with RMSNorm; 42, 57, 54 and 40 with this rule.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .._layout import alike, compute_dtype
from ..ops.layer_norm import leaves
from ._engine import asked_for

# Elements from which on the kernels gain more than their Python costs on a CPU; on a GPU every call saved is a launch.
# Penalties of perceptrons with two LayerNorms took 1.16 times as long with this rule as without it where those had 2¹²
# elements, 1.12 for 2¹³, 0.96 to 1.10 for 2¹⁴, 0.96 for 2¹⁵, 0.93 for 2¹⁶ (one core, AMD EPYC).
_WORTHWHILE = 1 << 14


class Rows(NamedTuple):
    """How x is seen: rows of ``width`` contiguous elements, with ``sets`` of weights in turn."""

    leaves: Any
    width: int
    sets: int
    inner: int  # neighbours that share a weight
    centered: bool  # False: μ is 0
    bends_bias: bool  # PyTorch follows the statistics' derivative into the layer once more, and gives b zeros there
    eps: float

    @property
    def shape(self):
        return -1, self.sets, self.width

    def rows(self, x):
        """Of one sample of x."""
        return x[0].numel() // self.width

    def weights(self, x):
        return self.width * self.sets

    def fwd(self, x, w, b):
        """(y, *statistics)"""
        return self.leaves.layer_norm_fwd(x, w, b, self.width, self.sets, self.centered, self.eps)

    def bwd(self, delta, x, w, stats, x_asked, weights_asked):
        """(Jᵀδ, and the gradients of w and b in ⟨δ, y⟩), as far as asked."""
        asked = self.width, self.sets, self.centered, x_asked, weights_asked
        return self.leaves.layer_norm_bwd(delta, x, w, *stats, *asked)

    def bwd_bwd(self, t, delta, x, w, stats, delta_asked=True, x_asked=True, w_asked=True):
        """What δ, x and w receive of ⟨t, Jᵀδ⟩, likewise."""
        asked = self.width, self.sets, self.centered, delta_asked, x_asked, w_asked
        return self.leaves.layer_norm_bwd_bwd(t, delta, x, w, *stats, *asked)

    def spread(self, w):
        """w for every element of its rows: [sets·width]."""
        if w is None or self.inner == 1:
            return w if w is None else w.contiguous()
        return w.unsqueeze(1).expand(-1, self.inner).contiguous()

    def gather(self, grad, like):
        """The reverse, of the gradient of what was spread."""
        grad = grad.view(-1, self.inner).sum(1) if self.inner > 1 else grad
        return grad.view(like.shape).to(like.dtype)

    def normalised(self, x):
        """(x̂, r) in ``shape`` and in the compute type, as functions of x."""
        x = x.reshape(self.shape).to(compute_dtype(x.dtype))
        if self.centered:
            x = x - x.mean(-1, keepdim=True)
        r = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return x * r, r

    def pullback(self, g, normalised, r):
        """P(g), all in ``shape``."""
        p = g - normalised * (g * normalised).mean(-1, keepdim=True)
        return r * (p - g.mean(-1, keepdim=True) if self.centered else p)


class Norm(torch.autograd.Function):
    """y = x̂·w + b. x: contiguous; w, b: one per ``inner`` elements of ``sets`` rows, or None."""

    @staticmethod
    def forward(ctx, x, w, b, how):
        wide = how.spread(w)
        y, mean, rstd = how.fwd(x, wide, how.spread(b))
        ctx.save_for_backward(x, w, b, wide, mean, rstd)
        ctx.how = how
        ctx.has_weight = w is not None
        return y

    @staticmethod
    def backward(ctx, delta):
        x, w, b, wide, mean, rstd = ctx.saved_tensors
        how = ctx.how
        asked = iter(asked_for(ctx))
        x_asked, w_asked, b_asked = (t is not None and next(asked) for t in (x, w, b))
        if not torch.is_grad_enabled():
            dx, dw, db = how.bwd(delta.contiguous(), x, wide, (mean, rstd), x_asked, w_asked or b_asked)
        else:
            if x_asked:
                dx = Pullback.apply(delta.contiguous(), x, w, b if how.bends_bias else None, wide, mean, rstd, how)
            if w_asked or b_asked:
                rows = delta.reshape(how.shape)
                db = rows.sum(0, dtype=mean.dtype)
                dw = (rows * how.normalised(x)[0]).sum(0) if w_asked else None
        return (
            dx if x_asked else None,
            how.gather(dw, w) if w_asked else None,
            how.gather(db, b) if b_asked else None,
            None,
        )


class Pullback(torch.autograd.Function):
    """P(δ·w). b: receives zeros, or None."""

    @staticmethod
    def forward(ctx, delta, x, w, b, wide, mean, rstd, how):
        ctx.save_for_backward(delta, x, w, wide, mean, rstd)
        ctx.how, ctx.b = how, b if b is None else b.detach()
        return how.bwd(delta, x, wide, (mean, rstd), True, False)[0]

    @staticmethod
    def backward(ctx, t):
        delta, x, w, wide, mean, rstd = ctx.saved_tensors
        how = ctx.how
        delta_asked, x_asked, *asked = asked_for(ctx)
        w_asked, b_asked = (u is not None and asked.pop(0) for u in (w, ctx.b))
        if torch.is_grad_enabled():
            ddelta, dx, dw = _second(t, delta, x, w, how)
        else:
            asked = delta_asked, x_asked, w_asked
            ddelta, dx, dw = how.bwd_bwd(t.contiguous(), delta, x, wide, (mean, rstd), *asked)
        return (
            ddelta if delta_asked else None,
            dx if x_asked else None,
            how.gather(dw, w) if w_asked else None,
            torch.zeros_like(ctx.b) if b_asked else None,
            *[None] * 4,
        )


def _second(t, delta, x, w, how):
    """(∂δ, ∂x, ∂w) in plain PyTorch, differentiable."""
    normalised, r = how.normalised(x)
    rows, tangent = delta.reshape(how.shape), t.reshape(how.shape)
    spread = 1 if w is None else how.spread(w).view(how.shape[1:])
    g = rows * spread
    p = how.pullback(tangent, normalised, r)
    u = -(tangent * normalised).mean(-1, keepdim=True) * g - (g * normalised).mean(-1, keepdim=True) * tangent
    bend = (g * p).mean(-1, keepdim=True)
    dx = r * (how.pullback(u, normalised, r) - normalised * bend)
    return (p * spread).view(x.shape).to(x.dtype), dx.view(x.shape).to(x.dtype), (rows * p).sum(0)


def layer_norm(x, shape, w, b, eps, centered=True):
    """The layer over the last dimensions of x, which are ``shape``; None where PyTorch has to do it."""
    return _norm(x, w, b, layer_rows(x, shape, eps, centered))


def group_norm(x, groups, w, b, eps, bends_bias=True):
    """The layer over the pixels and channels of each group of channels. x: [B, C, …]; w, b: [C]."""
    return _norm(x, w, b, group_rows(x, groups, eps, bends_bias))


def rms_norm(x, shape, w, eps):
    """layer_norm without a mean to subtract and without a bias."""
    return layer_norm(x, shape, w, None, eps, centered=False)


def layer_rows(x, shape, eps, centered=True):
    """How x is normalised over its last dimensions, which are ``shape``."""
    return Rows(leaves(x.device), shape.numel(), sets=1, inner=1, centered=centered, bends_bias=False, eps=eps)


def group_rows(x, groups, eps, bends_bias=True):
    """How x is normalised over the pixels and channels of each group of channels."""
    inner = x.shape[2:].numel()
    width = x.shape[1] // groups * inner
    return Rows(leaves(x.device), width, sets=groups, inner=inner, centered=True, bends_bias=bends_bias, eps=eps)


def _norm(x, w, b, how):
    """In the dtype of the weights, which may be wider than that of x; y in that of x."""
    if how.leaves is None or (x.numel() < _WORTHWHILE and x.device.type == "cpu"):
        return None
    given = [t for t in (w, b) if t is not None]
    dtype = given[0].dtype if given else x.dtype
    if any(t.dtype is not dtype or t.device != x.device for t in given):
        return None
    if dtype is not x.dtype and (dtype is not torch.float32 or x.dtype is torch.float64):
        return None
    y = Norm.apply(x.to(dtype).contiguous(), w, b, how)
    return y.to(x.dtype)


def _layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    shape = torch.Size(normalized_shape)
    if not _served(input, shape, weight, bias):
        return None
    return layer_norm(as_autocast(input), shape, weight, bias, eps)


def _rms_norm(input, normalized_shape, weight=None, eps=None):
    """Where the result is contiguous, and eps, which PyTorch makes of the dtype, the same in all its versions."""
    shape = torch.Size(normalized_shape)
    if not _served(input, shape, weight) or not input.is_contiguous():
        return None
    half = input.dtype not in (torch.float32, torch.float64)
    if half and (eps is None or torch.is_autocast_enabled(input.device.type)):
        return None
    if weight is not None and weight.dtype is not input.dtype:
        return None
    return rms_norm(input, shape, weight, torch.finfo(input.dtype).eps if eps is None else eps)


def _served(x, shape, *weights):
    """Whether there is something to normalise over, of that shape, as the weights are."""
    if x.numel() == 0 or len(shape) == 0 or x.shape[-len(shape) :] != shape:
        return False
    return all(w is None or w.shape == shape for w in weights)


def _group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    if not _has_channels(input, num_groups, weight, bias) or input.numel() == num_groups:
        return None
    y = group_norm(as_autocast(input), num_groups, weight, bias, eps)
    if y is None or input.device.type != "cpu" or input.is_contiguous():
        return y
    return alike(input, y)[1]


def _instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
):
    if running_mean is not None or running_var is not None or not use_input_stats:
        return None
    if input.dim() < 3 or not _has_channels(input, 1, weight, bias) or input.shape[2:].numel() == 1:
        return None
    return group_norm(input, input.shape[1], weight, bias, eps, bends_bias=False)


def _has_channels(x, groups, *weights):
    """[B, C, …] with C to divide, and one weight for each channel."""
    if x.dim() < 2 or x.numel() == 0 or groups < 1 or x.shape[1] % groups:
        return False
    return all(w is None or w.shape == x.shape[1:2] for w in weights)


def as_autocast(x):
    """x as autocast hands it to layer_norm and group_norm: float32 on a GPU."""
    return x.float() if x.device.type == "cuda" and torch.is_autocast_enabled("cuda") else x


ROUTES = {
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.rms_norm: _rms_norm,
}
