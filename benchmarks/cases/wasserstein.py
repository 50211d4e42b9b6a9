"""The critic's loss over its scores, forward and backward: a few kilobytes, so every launch shows."""

from math import prod

import torch

import wgan_kernels as wk

from ..case import OURS, Case, backward, label


def eager(real_scores, fake_scores, penalty):
    return fake_scores.mean() - real_scores.mean() + 10.0 * penalty


def forward_and_backward(loss):
    return lambda *leaves: backward(loss(*leaves), *leaves)


def case(*shape):
    def make(device, dtype):
        return tuple(torch.randn(size, device=device, dtype=dtype).requires_grad_() for size in (shape, shape, ()))

    return Case(
        name=f"wasserstein/{label(shape)}",
        what="mean(fake) − mean(real) + 10·penalty, forward and backward",
        make=make,
        contenders={
            OURS: forward_and_backward(lambda real, fake, penalty: wk.critic_loss(real, fake, penalty, weight=10.0)),
            "eager": forward_and_backward(eager),
        },
        reference=forward_and_backward(wk.reference.critic_loss),
        traffic=4 * prod(shape),
        operations=2 * prod(shape),
    )


CASES = (case(64, 1), case(64, 1, 30, 30))
