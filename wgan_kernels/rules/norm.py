"""Layer normalisation: y = x̂·w + b with x̂ = (x − μ)·r, r = 1/√(var + eps), over the last dimensions of x.

With g = δ·w and means over the normalised dimensions, of n elements, the pullback is::

    P(g) = r·(g − mean(g) − x̂·mean(g·x̂))

It is linear in g and its own adjoint, and it depends on x. For a cotangent t of it, and p = P(t)::

    ∂δ = w·p
    ∂w = Σ δ·p                                    over the samples
    ∂x = r·P(u) − r·x̂·mean(g·p),    u = −mean(t·x̂)·g − mean(g·x̂)·t

from ∂r = −r²·x̂/n for the second term, and for the first ∂/∂x̂ of ⟨t, P(g)⟩/r, pulled back through x̂(x): P again.
PyTorch's own second derivative is a composite: 84 operators are dispatched for the penalty of a LayerNorm and a tanh,
36 with this rule, which calls the fused pullback twice.
"""

import torch

from ._engine import asked_for

aten = torch.ops.aten


class LayerNorm(torch.autograd.Function):
    """y = x̂·w + b. x: [..., *shape]; w, b: shape, or None."""

    @staticmethod
    def forward(ctx, x, w, b, shape, eps):
        y, mean, rstd = aten.native_layer_norm(x, shape, w, b, eps)
        ctx.save_for_backward(x, w, b, mean, rstd)
        ctx.shape, ctx.eps = shape, eps
        ctx.has_weight = w is not None
        ctx.has = (True, w is not None, b is not None)
        return y

    @staticmethod
    def backward(ctx, delta):
        x, w, b, mean, rstd = ctx.saved_tensors
        asked = iter(asked_for(ctx))
        x_asked, w_asked, b_asked = (has and next(asked) for has in ctx.has)
        if not torch.is_grad_enabled():
            grads = aten.native_layer_norm_backward(
                delta.contiguous(), x, ctx.shape, mean, rstd, w, b, [x_asked, w_asked, b_asked]
            )
            return *grads, None, None
        samples = tuple(range(x.dim() - len(ctx.shape)))
        return (
            Pullback.apply(delta, x, w, mean, rstd, ctx.shape, ctx.eps) if x_asked else None,
            _over(samples, delta * _normalised(x, mean, rstd, ctx.shape, ctx.eps)) if w_asked else None,
            _over(samples, delta) if b_asked else None,
            None,
            None,
        )


class Pullback(torch.autograd.Function):
    """P(δ·w)."""

    @staticmethod
    def forward(ctx, delta, x, w, mean, rstd, shape, eps):
        ctx.save_for_backward(delta, x, w, mean, rstd)
        ctx.shape, ctx.eps = shape, eps
        return _pullback(delta, x, w, mean, rstd, shape)

    @staticmethod
    def backward(ctx, t):
        delta, x, w, mean, rstd = ctx.saved_tensors
        shape = ctx.shape
        asked = [*asked_for(ctx)]
        inner = tuple(range(-len(shape), 0))
        p = _pullback(t, x, None, mean, rstd, shape)
        delta_grad = x_grad = w_grad = None
        if asked[0]:
            delta_grad = p if w is None else p * w
        if w is not None and asked[2]:
            w_grad = _over(tuple(range(x.dim() - len(shape))), delta * p)
        if asked[1]:
            normalised = _normalised(x, mean, rstd, shape, ctx.eps)
            r = _scale(x, rstd, shape, ctx.eps)
            g = delta if w is None else delta * w
            u = -(t * normalised).mean(inner, keepdim=True) * g - (g * normalised).mean(inner, keepdim=True) * t
            x_grad = r * (_pullback(u, x, None, mean, rstd, shape) - normalised * (g * p).mean(inner, keepdim=True))
        return delta_grad, x_grad, w_grad, None, None, None, None


def layer_norm(x, shape, w, b, eps):
    """The layer; ``shape``: the last dimensions of x, over which it normalises."""
    return LayerNorm.apply(x, w, b, list(shape), eps)


def _pullback(g, x, w, mean, rstd, shape):
    return aten.native_layer_norm_backward(g.contiguous(), x, shape, mean, rstd, w, None, [True, False, False])[0]


def _scale(x, rstd, shape, eps):
    """r, as a function of x where derivatives of a higher order are recorded."""
    if not torch.is_grad_enabled():
        return rstd
    return (x.var(tuple(range(-len(shape), 0)), correction=0, keepdim=True) + eps).rsqrt()


def _normalised(x, mean, rstd, shape, eps):
    """x̂, likewise."""
    if not torch.is_grad_enabled():
        return (x - mean) * rstd
    return (x - x.mean(tuple(range(-len(shape), 0)), keepdim=True)) * _scale(x, rstd, shape, eps)


def _over(samples, tensor):
    return tensor.sum(samples) if samples else tensor
