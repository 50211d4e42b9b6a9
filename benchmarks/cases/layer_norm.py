"""A norm three times: forward, its pullback, and the derivative of that, as a penalty of its input gradient runs it."""

from math import prod

import torch
import torch.nn.functional as F

import wgan_kernels as wk
from wgan_kernels.reference import layer_norm as spec

from ..case import OURS, Case, label


def penalty(norm):
    """Forward and input gradient, and what the square of that gives to x, w and δ; b is in the first pass alone."""

    def run(x, w, b, delta):
        (grad,) = torch.autograd.grad(norm(x, w, b), x, delta, create_graph=True)
        return grad.detach(), *torch.autograd.grad(grad, (x, w, delta), grad.detach())

    return run


def case(name, shape, weights, norm, reference):
    def make(device, dtype):
        x, delta = torch.randn(2, *shape, device=device, dtype=dtype)
        w, b = torch.randn(2, *weights, device=device, dtype=dtype)
        return tuple(t.requires_grad_() for t in (x, w, b, delta))

    @wk.second_order()
    def ours(x, w, b):
        return norm(x, w, b)

    return Case(
        name=f"layer_norm/{name}-{label(shape)}",
        what="input gradient, and its gradients in x, w and δ",
        make=make,
        contenders={OURS: penalty(ours), "eager": penalty(norm)},
        reference=penalty(reference),
        # Forward: x, y. Pullback: δ, x and the result. Its derivative: t, δ, x, and two results.
        traffic=10 * prod(shape),
        # By the formulas of csrc/math/layer_norm.h. Forward: mean 1, variance 3, normalised, scaled and shifted 3.
        # Pullback: normalised 2, g 1, means 3, P(g) 4. Its derivative: normalised 2, g 1, means 8, P(t) 4, ∂δ 1, ∂w 2,
        # ∂x 8.
        operations=(7 + 10 + 26) * prod(shape),
    )


def layer(batch, *shape):
    return case(
        "layer",
        (batch, *shape),
        shape,
        lambda x, w, b: F.layer_norm(x, shape, w, b),
        lambda x, w, b: spec.layer_norm(x, shape, w, b, 1e-5),
    )


def group(groups, *shape):
    return case(
        "instance" if groups == shape[1] else f"group{groups}",
        shape,
        shape[1:2],
        lambda x, w, b: F.group_norm(x, groups, w, b),
        lambda x, w, b: spec.group_norm(x, groups, w, b, 1e-5),
    )


CASES = (
    layer(64, 64, 7, 7),
    layer(64, 128, 4, 4),
    layer(64, 64, 14, 14),
    group(8, 64, 64, 14, 14),
    group(64, 64, 64, 14, 14),
)
