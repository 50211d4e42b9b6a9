"""What a trained generator has to show: a grid, strips from one digit to another, a walk through the latent space.

Every point of every path is as a draw from N(0, I) is, on which the generator was trained: paths are arcs, for on a
straight line between two draws the norm falls to 0.7 of theirs, where the generator has seen nothing (White 2016,
"Sampling Generative Networks", section 2).
"""

import math
from pathlib import Path

import torch
from torch import nn

from . import checkpoint, report, weights
from ._optional import optional
from .config import Config
from .errors import UsageError
from .folder import RunFolder

FRAME_MS = 60
AT_ONCE = 500  # images


def generator_of_run(run: Path) -> tuple[nn.Module, int, list[str]]:
    """The averaged generator of a run's newest whole checkpoint, its iteration, and a sentence on each damaged one."""
    folder = RunFolder(run).checkpoints
    if not checkpoint.saved(folder):
        raise UsageError(f"--run {run}: holds no checkpoints; name the --out of a training run")
    state, damaged = checkpoint.newest(folder)
    average = {name.removeprefix("module."): tensor for name, tensor in state["trainer"]["ema"].items()}
    del average["n_averaged"]
    config, shape = Config.from_plain(state["config"]), state["shape"]
    if len(shape) != 3:
        raise UsageError(f"--run {run}: its generator draws points, not images; its samples/ show them")
    generator = weights.generator_of(average, config.generator, config.latent, shape, folder)
    return generator, state["trainer"]["iteration"], damaged


def slerp(start: torch.Tensor, end: torch.Tensor, steps: int) -> torch.Tensor:
    """sin((1−t)Ω)/sin Ω · start + sin(tΩ)/sin Ω · end, t from 0 to 1: [N, L], [N, L] → [N, steps, L].

    Ω: the angle between start and end; where they lie on one line, the straight line. White 2016, section 2.
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)[:, None, None]
    t = torch.linspace(0, 1, steps)[:, None]
    line = angle.sin() < 1e-4
    sine = torch.where(line, 1.0, angle.sin())
    first = torch.where(line, 1 - t, ((1 - t) * angle).sin() / sine)
    second = torch.where(line, t, (t * angle).sin() / sine)
    return first * start[:, None] + second * end[:, None]


def circle(one: torch.Tensor, other: torch.Tensor, steps: int) -> torch.Tensor:
    """cos(2πt) · one + sin(2πt) · other, t from 0 to just before 1: [N, L], [N, L] → [steps, N, L].

    Of two independent draws from N(0, I), every point is one again; the path closes and has no corners.
    """
    angle = (2 * math.pi * torch.arange(steps) / steps)[:, None, None]
    return angle.cos() * one + angle.sin() * other


@torch.no_grad()
def save_grid(generator: nn.Module, path: Path, noise: torch.Generator, rows: int) -> None:
    """``rows`` rows of ``rows`` digits."""
    report.save_grid(_images(generator, _draw(generator, rows * rows, noise)), path, rows)


@torch.no_grad()
def save_strips(generator: nn.Module, path: Path, noise: torch.Generator, rows: int, steps: int) -> None:
    """In each row one digit becomes another, in ``steps`` pictures."""
    latent = slerp(_draw(generator, rows, noise), _draw(generator, rows, noise), steps)
    report.save_grid(_images(generator, latent.flatten(0, 1)), path, steps)


@torch.no_grad()
def save_walk(generator: nn.Module, path: Path, noise: torch.Generator, rows: int, frames: int) -> None:
    """``rows`` rows of ``rows`` digits, each on a circle of its own through the latent space, as a GIF without end."""
    image = optional("PIL.Image", "writing pictures")
    latent = circle(_draw(generator, rows * rows, noise), _draw(generator, rows * rows, noise), frames)
    pictures = [image.fromarray(report.grid(_images(generator, points), rows).numpy()) for points in latent]
    report.save_animation(pictures, FRAME_MS, path)


def _images(generator: nn.Module, latent: torch.Tensor) -> torch.Tensor:
    """[N, L] → [N, C, H, W], in parts: what a generator holds of 10,000 digits at once is gigabytes."""
    return torch.cat([generator(part) for part in latent.split(AT_ONCE)])


def _draw(generator: nn.Module, count: int, noise: torch.Generator) -> torch.Tensor:
    return torch.randn(count, generator.latent, generator=noise)
