"""How cost grows: with the number of tensors, of elements, of samples, of pixels, of layers, of threads."""

from dataclasses import replace
from functools import partial

from torch import nn

from .. import machine
from ..networks import convolutions, perceptron, s3_critic
from . import clip, interpolate
from . import gradient_penalty as penalty

AXES = {
    "tensors": "clip_ of tensors of 64 elements",
    "elements": "interpolation",
    "batch": "penalty, 784-512-512-512-1",
    "side": "penalty, three convolutions, batch 4",
    "depth": "penalty, layers of 512, batch 64",
    "threads": "penalty, s3, batch 64",
    "processes": "critic step, 784-512-512-512-1, batch 64 in each",
}


def point(case, axis, value, **changes):
    """``case`` as a point of a curve."""
    return replace(case, name=f"scaling/{axis}/{value}", axis=(axis, value), **changes)


def image_critic(side):
    body = convolutions(3, 32, 64, 128, kernel=4, slope=0.2)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(128 * (side // 8) ** 2, 1))


def penalised(axis, value, critic, *shape, **changes):
    return point(penalty.case(axis, critic, *shape), axis, value, **changes, told=None)


def flat(elements):
    """ε·real + (1 − ε)·fake of so many elements in each of the three tensors."""
    batch = min(elements, 1000)
    (given, _) = interpolate.cases(batch, elements // batch)
    return replace(given, contenders={name: run for name, run in given.contenders.items() if name != "compile"})


def perceptron_of(depth):
    return partial(perceptron, 784, *[512] * depth)


def threads():
    """1, 2, 4, … up to the cores of this machine."""
    return [2**power for power in range(machine.cores().bit_length()) if 2**power <= machine.cores()]


CASES = (
    *(point(clip.of_tensors(count, 64), "tensors", count) for count in (1, 10, 100, 1000, 10_000)),
    *(point(flat(10**power), "elements", 10**power, large=power > 6) for power in range(3, 9)),
    point(flat(10**9), "elements", 10**9, large=True, kind="cuda"),
    *(penalised("batch", batch, perceptron_of(3), batch, 784, large=batch > 512) for batch in (1, 8, 64, 512, 4096)),
    *(
        penalised("side", side, partial(image_critic, side), 4, 3, side, side, large=side > 128)
        for side in (28, 64, 128, 256)
    ),
    *(penalised("depth", depth, perceptron_of(depth), 64, 784) for depth in (1, 2, 4, 8, 16)),
    *(penalised("threads", count, s3_critic, 64, 1, 28, 28, threads=count, kind="cpu") for count in threads()),
)
