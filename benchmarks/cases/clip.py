"""Weight clipping: many small tensors cost launches, a few large ones cost memory traffic."""

from math import prod

import torch

import wgan_kernels as wk

from ..case import OURS, Case
from ..networks import blank, s3_critic, size

BOUND = 0.01


def ours(params):
    wk.clip_(params, BOUND)


def tensors(params):
    return params.parameters() if isinstance(params, torch.nn.Module) else params


@torch.no_grad()
def loop(params):
    for param in tensors(params):
        param.clamp_(-BOUND, BOUND)


@torch.no_grad()
def foreach(params):
    params = list(tensors(params))
    torch._foreach_clamp_min_(params, -BOUND)
    torch._foreach_clamp_max_(params, BOUND)


def case(name, what, make, elements):
    return Case(
        name=f"clip/{name}",
        what=what,
        make=make,
        contenders={OURS: ours, "loop": loop, "foreach": foreach},
        reference=lambda params: wk.reference.clip_(params, BOUND),
        traffic=2 * elements,
        operations=2 * elements,  # comparisons
        in_place=True,
    )


def of_tensors(count, *shape):
    def make(device, dtype):
        return ([0.02 * torch.randn(shape, device=device, dtype=dtype) for _ in range(count)],)

    elements = count * prod(shape)
    return case(
        f"{count}x{prod(shape)}", f"{count:,} tensor{'s' * (count > 1)} of {prod(shape):,} elements", make, elements
    )


def of_module():
    elements = size(blank(s3_critic))
    what = f"the parameters of a convolutional critic, {elements:,} in all"
    return case("module", what, lambda device, dtype: (s3_critic().to(device, dtype),), elements)


CASES = (
    of_tensors(1000, 4),
    of_tensors(10, 64),
    of_tensors(100, 64),
    of_tensors(50, 256, 256),
    of_tensors(4, 2048, 2048),
    of_module(),
)
