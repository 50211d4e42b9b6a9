"""The same minutes of training by a plain PyTorch loop and by the steps of this package: which samples are better?

    python examples/equal_minutes.py                   a few minutes of each way
    python examples/equal_minutes.py --minutes 10

The networks, the data, the hyperparameters and the seed are those of ``train_mnist.py``: the learning rate falls with
the time, to 0 at the end, and a moving average of the generator is judged. The plain loop is the formulas, autograd and
``torch.optim`` in PyTorch's default memory format, which is what a user writes: once with the same hyperparameters,
once with those of the paper's algorithm 1, a learning rate of 1e-4 that stays, without an average; and once more in
channels-last memory, as the steps have it. Each way trains in a process of its own, one after the other, and judging
the samples does not count. Needs the ``gallery`` extra.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import openmp  # noqa: F401 (before torch)
import torch
from digits import ALL, all_digits, compare_fid, noise, sheet
from experiment import panels, save
from script import check_flags, main, progress

import wgan_kernels as wk
from wgan_kernels.training.config import Config as Settings
from wgan_kernels.training.device import resolve_device
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.metrics import judge_of
from wgan_kernels.training.schedules import learning_rate
from wgan_kernels.training.trainer import Trainer

SIDE = 8  # digits along a grid's edge
KEPT = ("fid", "confidence", "smallest_mode")


class Timed(Trainer):
    """Its learning rate follows ``share``, the part of the time that is over."""

    share = 0.0

    def _lr(self) -> float:
        return learning_rate(self.config, self.share * self.config.iterations)


class ChannelsLast(Timed):
    """By the formulas and autograd, with PyTorch's own optimizer."""

    def _steps(self):
        adam = {"betas": (self.config.beta1, self.config.beta2)}
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), **adam)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), **adam)
        critic = wk.reference.CriticStep(
            self.critic, self.critic_optimizer, weight=self.config.penalty_weight, generator=self.random
        )
        return critic, None, wk.reference.GeneratorStep(self.generator, self.critic, self.generator_optimizer)


class Plain(ChannelsLast):
    """In PyTorch's default memory format."""

    def _steps(self):
        for network in (self.generator, self.critic):
            network.to(memory_format=torch.contiguous_format)
        return super()._steps()


PAPER = {"lr": 1e-4, "lr_end": 1.0, "ema_decay": 0.0}  # Gulrajani et al. 2017, algorithm 1, but for Adam's β₁
WAYS: dict[str, tuple[type[Timed], dict, str]] = {  # the trainer, what differs from its settings, a colour
    "plain PyTorch, the paper's rates": (Plain, {"precision": "float32"} | PAPER, "C7"),
    "plain PyTorch": (Plain, {"precision": "float32"}, "C0"),
    "plain, channels last": (ChannelsLast, {"precision": "float32"}, "C2"),
    "steps, float32": (Timed, {"precision": "float32"}, "C1"),
    "steps": (Timed, {}, "C3"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A plain loop and the steps on MNIST, as long as each other: the classifier-FID against the time."""

    out: Path = Path("equal_minutes.png")
    """The figure to write (PNG); what was measured goes beside it (JSON). Files of these names are replaced."""
    minutes: float = 4.0
    """Of training, each way."""
    points: int = 8
    """How often the samples are judged, in even parts of the time; the last time at the end."""
    samples: int = 5000
    """Generated digits that are judged each time."""
    seed: int = 0
    """Of weights, batches and noise."""
    threads: int = 2
    """Of PyTorch."""
    device: str = "auto"
    """cpu, cuda, …; auto: cuda where there is one, else cpu."""

    def check(self) -> None:
        """Raises UsageError on a value out of range."""
        check_flags(self, {"points": 1, "samples": 100, "threads": 1})
        if not 0 < self.minutes < float("inf"):
            raise UsageError(f"--minutes {self.minutes}: expected a number above 0")
        resolve_device(self.device)


def settings(way: str, config: Config) -> Settings:
    return Settings(seed=config.seed, device=config.device, **WAYS[way][1]).resolved()


def follow(way: str, config: Config) -> Iterator[tuple[dict, torch.Tensor]]:
    """Trains one way; yields the figures at each point, and [SIDE², 1, 28, 28] from the same noise at each."""
    digits = all_digits(config)
    judge = judge_of(digits, "mnist", ALL)
    trained = WAYS[way][0](settings(way, config), digits)
    latent = noise(config.samples, trained.config.latent, config)
    seconds, limit = 0.0, 60 * config.minutes
    for point in range(1, config.points + 1):
        while seconds < limit * point / config.points:
            began = time.monotonic()
            trained.share = seconds / limit
            losses = trained.iterate()
            losses["critic"].item()  # waits for a GPU
            seconds += time.monotonic() - began
        samples = list(trained.sample(latent))
        verdict = judge(samples)
        figures = {"seconds": seconds, "iteration": trained.iteration} | {key: verdict[key] for key in KEPT}
        yield figures, samples[0][: SIDE**2].cpu()


def whole(way: str, config: Config) -> tuple[list[dict], torch.Tensor, str]:
    """All figures of a way, its last samples, and the precision that "auto" was."""
    torch.set_num_threads(config.threads)
    points = list(follow(way, config))
    return [figures for figures, _ in points], points[-1][1], settings(way, config).precision


def apart(way: str, config: Config, advance) -> tuple[list[dict], torch.Tensor, str]:
    """The same in a process of its own; ``advance`` is called every second."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(whole, way, config)
        for _ in range(round(60 * config.minutes)):
            time.sleep(0 if future.done() else 1)
            advance(way)
        return future.result()


def run(config: Config) -> dict:
    """Trains, judges and draws; returns what was measured."""
    with progress(len(WAYS) * round(60 * config.minutes)) as advance:
        found = {way: apart(way, config, advance) for way in WAYS}
    rows = {way: of[0] for way, of in found.items()}
    measured = {"rows": rows, "precision": {way: of[2] for way, of in found.items()}}
    drawn = picture(rows, {way: of[1] for way, of in found.items()})
    save(drawn, config, measured, sentences(measured), resolve_device(config.device))
    return measured


def sentences(measured: dict) -> list[str]:
    told = [
        f"{way} ({measured['precision'][way]}): {of[-1]['iteration']} iterations in {of[-1]['seconds']:.0f} s, "
        f"classifier-FID {of[-1]['fid']:.2f}, confidence {of[-1]['confidence']:.3f}, smallest mode "
        f"{100 * of[-1]['smallest_mode']:.1f} %."
        for way, of in measured["rows"].items()
    ]
    paper, plain, last, *_, ours = measured["rows"].values()
    reached = next((row["seconds"] for row in ours if row["fid"] <= plain[-1]["fid"]), None)
    compared = f"At the end the FID of the steps is {ours[-1]['fid'] / plain[-1]['fid']:.2f} times the plain loop's"
    if reached:
        compared += f", which they had reached after {reached:.0f} s"
    compared += (
        f"; {ours[-1]['fid'] / last[-1]['fid']:.2f} times that in channels-last memory, "
        f"{ours[-1]['fid'] / paper[-1]['fid']:.2f} times that with the paper's rates"
    )
    return [*told, f"{compared}."]


def picture(rows: dict[str, list[dict]], grids: dict[str, torch.Tensor]):
    """The last samples of each way, and the FID against the time."""
    drawn, axes = panels(1, len(WAYS) + 1)
    for place, (way, grid) in zip(axes[0], grids.items(), strict=False):
        last = rows[way][-1]
        sheet(place, grid, SIDE, f"{way}\nFID {last['fid']:.2f} after {last['iteration']} iterations")
        place.title.set_fontsize("medium")
    compare_fid(axes[0, -1], rows, {way: colour for way, (_, _, colour) in WAYS.items()}, "seconds")
    return drawn


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
