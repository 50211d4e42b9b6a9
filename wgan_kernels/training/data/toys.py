"""Distributions in the plane whose every property is known: drawn afresh each time, on the generator's device.

Gulrajani et al. 2017, section 5.1 and figure 1b, with the constants of their code (``gan_toy.py``), which divides by
about the standard deviation; its 25 gaussians are 100,000 points drawn once, ours have no end. ``parallel-lines``:
Arjovsky et al. 2017, example 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

SCALE_8, SCALE_25, SCALE_ROLL = 1.414, 2.828, 7.5


@dataclass(frozen=True, eq=False)
class Toy:
    """draw: (count, generator) → float32 [count, 2]; modes: their centres [K, 2]; spread: one's standard deviation."""

    name: str
    draw: Callable[[int, torch.Generator], torch.Tensor]
    modes: torch.Tensor | None = None
    spread: float | None = None

    @property
    def shape(self) -> tuple[int]:
        return (2,)

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``count`` points: float32 [count, 2] on the generator's device."""
        return self.draw(count, generator)

    def to(self, device: torch.device | str) -> "Toy":
        """Itself: the points are made where their generator is."""
        return self

    def shard(self, rank: int, size: int) -> "Toy":
        """Itself: there is no end to the points, and each rank has a generator of its own."""
        return self

    def fingerprint(self) -> str:
        return self.name


def on_a_circle(mode: torch.Tensor) -> torch.Tensor:
    """2 (cos πk/4, sin πk/4) / 1.414, for k = 0 … 7: int64 [N] → [N, 2]."""
    angle = mode.to(torch.float32) * (math.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], 1) * (2 / SCALE_8)


def on_a_grid(mode: torch.Tensor) -> torch.Tensor:
    """(2i, 2j) / 2.828, for i, j = −2 … 2 and k = 5 (i + 2) + j + 2: int64 [N] → [N, 2]."""
    place = torch.stack([mode // 5 - 2, mode % 5 - 2], 1)
    return place.to(torch.float32) * (2 / SCALE_25)


def gaussians(name: str, centre: Callable[[torch.Tensor], torch.Tensor], modes: int, spread: float) -> Toy:
    """centre(k) + spread · n,    k uniform over the modes, n ~ N(0, 1)²"""

    def draw(count: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(modes, (count,), generator=generator, device=generator.device)
        return centre(chosen) + spread * _normal(count, generator)

    return Toy(name, draw, centre(torch.arange(modes)), spread)


def swiss_roll(count: int, generator: torch.Generator) -> torch.Tensor:
    """((t cos t, t sin t) + 0.25 n) / 7.5,    t ~ U[1.5π, 4.5π), n ~ N(0, 1)²

    Columns 0 and 2 of scikit-learn's ``make_swiss_roll(noise=0.25)`` (Marsland 2014, chapter 6).
    """
    turn = 1.5 * math.pi * (1 + 2 * _uniform(count, generator))
    roll = torch.stack([turn * turn.cos(), turn * turn.sin()], 1)
    return (roll + 0.25 * _normal(count, generator)) / SCALE_ROLL


def parallel_line(count: int, generator: torch.Generator) -> torch.Tensor:
    """(0, z),    z ~ U[0, 1): the line that the parallel ones (θ, z) are to be moved onto."""
    height = _uniform(count, generator)
    return torch.stack([torch.zeros_like(height), height], 1)


def _uniform(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator, device=generator.device, dtype=torch.float32)


def _normal(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(count, 2, generator=generator, device=generator.device, dtype=torch.float32)


TOYS = {
    toy.name: toy
    for toy in (
        gaussians("8-gaussians", on_a_circle, 8, 0.02 / SCALE_8),
        gaussians("25-gaussians", on_a_grid, 25, 0.05 / SCALE_25),
        Toy("swiss-roll", swiss_roll),
        Toy("parallel-lines", parallel_line),
    )
}
