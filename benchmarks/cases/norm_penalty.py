"""The penalty of a gradient that is already there, forward and backward: read it, read it again, write its own."""

from math import prod

import torch

import wgan_kernels as wk

from ..case import OURS, Case, backward, label
from ..peers.compile import compiled


def eager(grad):
    return ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def forward_and_backward(penalty):
    return lambda grad: backward(penalty(grad), grad)


def case(*shape):
    def make(device, dtype):
        # Norms around 1, where the penalty of a trained critic lives.
        grad = torch.randn(shape, device=device, dtype=dtype) / prod(shape[1:]) ** 0.5
        return ((grad * torch.linspace(0.5, 1.5, shape[0]).view(-1, 1, 1, 1).to(grad)).requires_grad_(),)

    return Case(
        name=f"norm_penalty/{label(shape)}",
        what="mean (‖grad‖ − 1)², forward and backward",
        make=make,
        contenders={
            OURS: forward_and_backward(lambda grad: wk.gradient_norm_penalty(grad)),
            "eager": forward_and_backward(eager),
            "compile": forward_and_backward(compiled(eager)),
        },
        reference=forward_and_backward(wk.reference.gradient_norm_penalty),
        traffic=3 * prod(shape),
        operations=3 * prod(shape),
    )


CASES = (case(64, 3, 64, 64), case(64, 1, 28, 28), case(16, 3, 256, 256))
