"""What the optimizers' cases share: weights that come with gradients, and a step with a clip by each contender."""

from math import prod

import torch
from torch import nn

from ..case import OURS, Case

LR, BOUND = 5e-5, 0.01


class Weights(nn.Module):
    """Parameters, their gradients, and an optimizer for each contender, made at its first step."""

    def __init__(self, count, shape, **where):
        super().__init__()
        self.params = nn.ParameterList(BOUND * torch.randn(shape, **where) for _ in range(count))
        for i in range(count):
            self.register_buffer(f"grad_{i}", torch.randn(shape, **where))
        self.optimizers = {}

    def optimizer(self, name, make):
        if name not in self.optimizers:
            for param, grad in zip(self.params, self.buffers(), strict=True):
                param.grad = grad
            self.optimizers[name] = make(list(self.params), lr=LR)
        return self.optimizers[name]


@torch.no_grad()
def clamp(params):
    for param in params:
        param.clamp_(-BOUND, BOUND)


@torch.no_grad()
def foreach_clamp(params):
    params = list(params)
    torch._foreach_clamp_min_(params, -BOUND)
    torch._foreach_clamp_max_(params, BOUND)


def step_of(name, make, clip=None):
    """A contender: a step of the optimizer that ``make(params, lr=…)`` returns, then ``clip(params)``."""

    def run(weights):
        weights.optimizer(name, make).step()
        if clip is not None:
            clip(weights.params)

    return run


def compiled(name, make):
    """The step and the clip as one graph, anew for each optimizer: more often than torch's limit allows by default."""
    torch._dynamo.config.recompile_limit = 64
    graphs = {}

    def run(weights):
        optimizer = weights.optimizer(name, make)
        if optimizer not in graphs:

            def whole():
                optimizer.step()
                foreach_clamp(weights.params)

            graphs[optimizer] = torch.compile(whole)
        graphs[optimizer]()

    return run


def cases(op, ours, spec, baselines, touched, operations):
    """``touched``: elements read or written per weight; ``operations``: per weight too, a square root as one."""
    contenders = {OURS: step_of(OURS, ours)} | baselines

    def of_tensors(count, *shape, without=()):
        elements = count * prod(shape)
        return Case(
            name=f"{op}/{count}x{prod(shape)}",
            what=f"a step and a clip of {count:,} tensors of {prod(shape):,} elements",
            make=lambda device, dtype: (Weights(count, shape, device=device, dtype=dtype),),
            contenders={name: run for name, run in contenders.items() if name not in without},
            reference=step_of("reference", spec),
            traffic=touched * elements,
            operations=operations * elements,
            in_place=True,
        )

    many = of_tensors(1000, 4, without=("compile",))  # which takes minutes to compile as many
    return (of_tensors(20, 4096), of_tensors(8, 1024, 1024), many)
