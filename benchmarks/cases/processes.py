"""A critic's step in several processes, each with a thread and a batch of its own: weak scaling.

Perceptrons, because what they exchange is large beside what they compute: an estimate of the exchange that is wrong
would show.
"""

from functools import partial

import torch
import torch.distributed as dist

import wgan_kernels as wk
from wgan_kernels.training import distributed

from .. import machine
from ..case import OURS, Case
from ..networks import blank, operations, perceptron, size
from ..paper import ALONE, LARGE, SMALL, TOGETHER, Paper
from . import critic_step
from .critic_step import ADAM, KINKS, Plain, drawn_for, update

CRITIC, BATCH, FEATURES = partial(perceptron, 784, 512, 512, 512), 64, 784
PING = 2**22  # elements: 16 MiB in float32


def averaged(optimizer):
    distributed.average_gradients_before_step(optimizer)
    return optimizer


def ours(critic, joined=averaged):
    return wk.CriticStep(critic, joined(wk.optim.Adam(critic.parameters(), **ADAM)), weight=critic_step.WEIGHT)


def eager(critic):
    adam = lambda params: averaged(torch.optim.Adam(params, **ADAM))  # noqa: E731
    return Plain(critic, adam, wk.reference.gradient_penalty, wk.reference.critic_loss)


def alone(run):
    """Rank 0, while the others wait."""
    return lambda *inputs: run(*inputs) if distributed.rank() == 0 else ()


def exchange(elements):
    """An all-reduce of numbers whose sum is 0 in every call."""

    def run(critic, real, fake):
        buffers = critic.__dict__.setdefault("buffers_of_exchanges", {})
        if elements not in buffers:
            buffers[elements] = real.new_full((elements,), distributed.rank() - (distributed.size() - 1) / 2)
        dist.all_reduce(buffers[elements])
        return (buffers[elements],)

    return run


def case(count):
    def make(device, dtype):
        real, fake = torch.randn(2, count * BATCH, FEATURES, device=device, dtype=dtype)
        return CRITIC().to(device, dtype), real, fake

    def share(rank, critic, real, fake):
        return critic, real.chunk(count)[rank], fake.chunk(count)[rank]

    def drawn(critic, real, fake):
        """ε of all ranks, each from a seed of its own."""
        found = []
        for rank in range(count):
            torch.manual_seed(rank)
            found.append(drawn_for(share(rank, critic, real, fake)[1]))
        return (torch.cat(found),)

    def reference_of_one(critic, real, fake, eps):
        return critic_step.reference(*share(0, critic, real, fake), eps[:BATCH])

    def nothing_is_left(elements):
        return lambda critic, real, fake, eps: (real.new_zeros(elements),)

    network = blank(CRITIC)
    without_exchange = update("without exchange", partial(ours, joined=lambda optimizer: optimizer))
    parts = {
        ALONE: (alone(without_exchange), reference_of_one),
        TOGETHER: (without_exchange, reference_of_one),
        SMALL: (exchange(1), nothing_is_left(1)),
        LARGE: (exchange(PING), nothing_is_left(PING)),
    }
    return Case(
        name=f"scaling/processes/{count}",
        what=f"an update of the mlp critic on a batch of {BATCH} in each of {count} process{'es' * (count > 1)}",
        make=make,
        contenders={OURS: update(OURS, ours), "eager": update("eager", eager)},
        reference=critic_step.reference,  # of one process that has all samples
        added=drawn,
        tolerance=KINKS,
        operations=operations(network, FEATURES, backward=2 * BATCH, penalty=BATCH),  # of each process
        units=parts if count > 1 else {},
        # Beside the gradients, one number for each parameter says that it has one.
        paper=Paper(count, size(network) + len(list(network.parameters())), PING) if count > 1 else None,
        axis=("processes", count),
        processes=count,
        share=share,
        threads=1,
        large=count != 2,  # a quick run has no time to start them all
        kind="cpu",
    )


# 1, 2, 4, … up to the cores of this machine, and 2 on any.
CASES = tuple(case(2**power) for power in range(max(2, machine.cores().bit_length())))
