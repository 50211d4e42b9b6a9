"""Points between real and fake samples: pure memory traffic, three passes at the least."""

from math import prod

import torch

import wgan_kernels as wk

from ..case import OURS, Case, label
from ..peers.compile import compiled


def eager_given(real, fake, eps):
    return eps * real + (1 - eps) * fake


def eager_drawn(real, fake):
    eps = torch.rand(real.shape[0], *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    return eps * real + (1 - eps) * fake


def given_draw(outcome, real, fake):
    """ε as ``outcome`` used it: its least-squares estimate per sample, which the reference then has to reproduce.

    Raises:
        ValueError: the samples share one ε.
    """
    span = (real.double() - fake.double()).flatten(1)
    eps = ((outcome.double() - fake.double()).flatten(1) * span).sum(1) / span.square().sum(1)
    if eps.max() - eps.min() < 0.01:
        raise ValueError("every sample got the same ε")
    return real, fake, eps.clamp(0, 1)


def cases(*shape):
    def make_given(device, dtype):
        real, fake = torch.randn(2, *shape, device=device, dtype=dtype)
        return real, fake, torch.rand(shape[0], *[1] * (len(shape) - 1), device=device, dtype=dtype)

    yield Case(
        name=f"interpolate/{label(shape)}/given",
        what="ε·real + (1 − ε)·fake, ε given",
        make=make_given,
        contenders={
            OURS: lambda real, fake, eps: wk.interpolate(real, fake, eps),
            "eager": eager_given,
            "compile": compiled(eager_given),
        },
        reference=wk.reference.interpolate,
        traffic=3 * prod(shape),
        operations=3 * prod(shape),
    )
    yield Case(
        name=f"interpolate/{label(shape)}/drawn",
        what="ε·real + (1 − ε)·fake, ε drawn in the call",
        make=lambda device, dtype: make_given(device, dtype)[:2],
        contenders={
            OURS: lambda real, fake: wk.interpolate(real, fake),
            "eager": eager_drawn,
            "compile": compiled(eager_drawn),
        },
        reference=wk.reference.interpolate,
        traffic=3 * prod(shape),
        operations=3 * prod(shape),
        given=given_draw,
    )


CASES = (*cases(64, 3, 64, 64), *cases(64, 1, 28, 28), *cases(16, 3, 256, 256))
