"""(‖g‖₂ − target)² per sample, reduced over the batch."""

import torch

from .. import _checks, _dispatch, _layout, _library, reference

_REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _fwd_rule(leaves):
    def setup_context(ctx, inputs, output):
        grad, *ctx.settings = inputs
        ctx.save_for_backward(grad, output[1])

    def backward(ctx, penalty_grad, _):
        grad, norm = ctx.saved_tensors
        return leaves.norm_penalty_bwd(penalty_grad.contiguous(), grad, norm, *ctx.settings), None, None, None

    return setup_context, backward


def _bwd_rule(leaves):
    """The backward is s·c(n)·g with n = ‖g‖, c = 2·(1 − target/n), s = penalty_grad (/B for a mean). For a tangent t:

    d/ds = c·⟨t, g⟩,    d/dg = s·(c·t + c′/n·⟨t, g⟩·g),    c′ = 2·target/n².

    In plain torch, hence differentiable further. ``norm`` is a function of ``grad`` and receives nothing of its own.
    """

    def setup_context(ctx, inputs, output):
        penalty_grad, grad, _, *ctx.settings = inputs
        ctx.save_for_backward(penalty_grad, grad)

    def backward(ctx, tangent):
        penalty_grad, grad = ctx.saved_tensors
        target, one_sided, reduction = ctx.settings
        shape = (-1, *[1] * (grad.dim() - 1))
        norm = torch.linalg.vector_norm(grad.unsqueeze(1).flatten(1), dim=1)
        idle = (norm == 0) | (norm < target) if one_sided else norm == 0
        n = norm.masked_fill(norm == 0, 1)
        slope = (2 * (1 - target / n)).masked_fill(idle, 0).view(shape)
        bend = (2 * target / n**3).masked_fill(idle, 0).view(shape)
        dot = (tangent * grad).unsqueeze(1).flatten(1).sum(1).view(shape)
        count = grad.shape[0] if reduction == _REDUCTIONS["mean"] else 1
        share = penalty_grad.view(-1) / count
        share_grad = (slope * dot).flatten() / count
        penalty_grad_grad = share_grad if reduction == _REDUCTIONS["none"] else share_grad.sum()
        return penalty_grad_grad, share.view(shape) * (slope * tangent + bend * dot * grad), None, None, None, None

    return setup_context, backward


def _fwd_fake(grad, target, one_sided, reduction):
    batch = grad.shape[0]
    penalty = grad.new_empty(batch if reduction == _REDUCTIONS["none"] else ())
    return penalty, grad.new_empty(batch, dtype=_layout.compute_dtype(grad.dtype))


_library.define(
    "norm_penalty_fwd(Tensor grad, float target, bool one_sided, int reduction) -> (Tensor, Tensor)",
    fake=_fwd_fake,
    stem="norm_penalty",
    rule=_fwd_rule,
)
_library.define(
    "norm_penalty_bwd(Tensor penalty_grad, Tensor grad, Tensor norm, float target, bool one_sided, int reduction)"
    " -> Tensor",
    fake=lambda penalty_grad, grad, *_: torch.empty_like(grad),
    stem="norm_penalty",
    rule=_bwd_rule,
)


def gradient_norm_penalty(grad, *, target=1.0, one_sided=False, reduction="mean"):
    """How far the norm of each sample's gradient is from its target.

    ::

        p_i = (‖grad_i‖₂ − target)²            or, one-sided,  max(0, ‖grad_i‖₂ − target)²
        ∂p_i/∂grad_i = 2·(1 − target/‖grad_i‖₂)·grad_i,    0 where ‖grad_i‖₂ = 0

    One pass over memory forward and one backward. Differentiable to any order, by kernels to the first and by plain
    PyTorch beyond. The result is a new tensor; ``grad`` is saved: do not change it in place before the backward.

    Args:
        grad: [B, …], for instance of ``torch.autograd.grad(scores.sum(), x, create_graph=True)``.
        target: the norm asked for, in the units of scores per unit of x; 0 gives the squared norm.
        one_sided: leaves norms below the target alone.
        reduction: ``"mean"`` or ``"sum"`` over the batch → [], ``"none"`` → [B].

    Returns:
        The penalty in grad's dtype; arithmetic is in float32 for the half types, sums in float64.

    Raises:
        TypeError: grad is not a floating-point tensor, target not a number, one_sided not a bool.
        ValueError: grad has no batch dimension, target is negative or NaN, reduction is unknown.
        RuntimeError: the backend asked for cannot run.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3; one-sided: their section 4.
    """
    _checks.floating("grad", grad)
    _checks.batched("grad", grad)
    target = asked(target, one_sided)
    _checks.one_of("reduction", reduction, _REDUCTIONS)
    backend, _ = _dispatch.choose("norm_penalty", grad.device)
    if backend == "reference":
        return reference.gradient_norm_penalty(grad, target=target, one_sided=one_sided, reduction=reduction)
    (grad,) = _layout.alike(grad)
    return _library.leaves(backend).norm_penalty_fwd(grad, target, one_sided, _REDUCTIONS[reduction])[0]


def asked(target, one_sided):
    """Checks what is asked of the norm. Returns the target as a number."""
    target = _checks.number("target", target)
    if target < 0:
        raise ValueError(f"target is {target}: expected a norm ≥ 0")
    _checks.flag("one_sided", one_sided)
    return target


def with_derivative(grad, weight, *, target, one_sided):
    """The mean of ``gradient_norm_penalty``, and what a step without a graph needs of it beside.

    Returns:
        (penalty: [], weight·∂penalty/∂grad: like grad, the samples' norms: [B], in the type of the arithmetic); outside
        of any graph.
    """
    grad = grad.detach()
    backend, _ = _dispatch.choose("norm_penalty", grad.device)
    if backend == "reference":
        with torch.enable_grad():
            penalty = reference.gradient_norm_penalty(grad.requires_grad_(), target=target, one_sided=one_sided)
            (derivative,) = torch.autograd.grad(weight * penalty, grad)
        return penalty.detach(), derivative, torch.linalg.vector_norm(grad.detach().unsqueeze(1).flatten(1), dim=1)
    (grad,) = _layout.alike(grad)
    leaves, settings = _library.leaves(backend), (target, one_sided, _REDUCTIONS["mean"])
    penalty, norm = leaves.norm_penalty_fwd(grad, *settings)
    return penalty, leaves.norm_penalty_bwd(torch.full_like(penalty, weight), grad, norm, *settings), norm
