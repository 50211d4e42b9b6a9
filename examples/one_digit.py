"""One digit alone, as the Keras notebook trains it: three losses, 10×10 samples on the way, and their film.

    python examples/one_digit.py --digit 3 --out one_digit.png
    python examples/one_digit.py --digit 6 --full         the notebook's length

The preset s0 (seed S0): half batches of real digits and generated ones in turn with labels −1 and 1, RMSprop 5e-5, the
two convolutions' kernels clipped to ±0.01. The film is beside the figure (GIF). Needs the ``gallery`` extra.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openmp  # noqa: F401 (before torch)
import torch
from digits import Options, all_digits, even_steps, followed, logarithmic, noise, sampled, series, sheet, trainer
from experiment import EXACT, panels, save
from script import main, progress

from wgan_kernels.training import presets, report
from wgan_kernels.training._optional import optional
from wgan_kernels.training.metrics import judge_of
from wgan_kernels.training.trainer import Trainer

LENGTHS = {3: 3500, 4: 3500, 6: 8000}  # what the notebook shows last; of the fours it does not say
LOSSES = {"critic on real": "C0", "critic on fake": "C1", "generator": "C2"}
SIDE, SHOWN = 10, 4  # digits along the edge of a grid, grids in the figure
ROWS, FRAMES = 240, 30  # points of the losses' curves, and frames of the film; fewer in a shorter run
FRAME_MS, LAST_FRAME_MS = 150, 3000
KEPT = ("fid", "confidence", "w1", "sliced_w")


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """One digit alone, as the Keras notebook trains it: three losses, samples on the way, and their film."""

    out: Path = Path("one_digit.png")
    """The figure to write (PNG); its film (GIF) and what was measured (JSON) go beside it. Such files are replaced."""
    digit: Literal[3, 4, 6] = 3
    """The only one that is learned."""
    iterations: int = 180
    full: bool = False
    """The notebook's length: 3,500 iterations of the threes and fours, 8,000 of the sixes; half an hour or more."""
    points: int = 6
    samples: int = 600

    @property
    def length(self) -> int:
        return LENGTHS[self.digit] if self.full else self.iterations


class Losses:
    """As the notebook has them: mean f times the label, −1 for real, 1 for fake; the generator calls its own real."""

    def __init__(self, trained: Trainer):
        """Records every update of ``trained`` from now on."""
        self.step, trained.critic_step = trained.critic_step, self._recorded
        self.updates: list[torch.Tensor] = []
        self.generator: list[torch.Tensor] = []
        self.rows: list[dict] = []

    def _recorded(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.step(real, fake)
        self.updates.append(torch.stack([found["real"], found["fake"]]))
        return found

    def row(self, iteration: int) -> None:
        """The means since the last row."""
        real, fake = torch.stack(self.updates).mean(0).tolist()
        means = dict(zip(LOSSES, (real, fake, torch.stack(self.generator).mean().item()), strict=True))
        self.rows.append({"iteration": iteration, **means, "estimate": -real - fake})
        self.updates.clear()
        self.generator.clear()


def grid(trained: Trainer, latent: torch.Tensor) -> torch.Tensor:
    """[SIDE², 1, 28, 28] from the first of latent [N, L]."""
    return torch.cat(sampled(trained, latent[: SIDE**2]))


def film(grids: Iterable[torch.Tensor], path: Path) -> None:
    """Writes grids [SIDE², 1, 28, 28] as a GIF, one screen pixel for each of a digit's."""
    image = optional("PIL.Image", "writing the film")
    pictures = [image.fromarray(report.grid(images.cpu(), SIDE, 1).numpy()) for images in grids]
    report.save_animation(pictures, [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS], path)


def run(config: Config) -> dict:
    """Trains, judges and draws; returns what was measured."""
    only = (config.digit,)
    digits = all_digits(config).only(only)
    judge = judge_of(digits, "mnist", only)
    trained = trainer(presets.PRESETS["s0"], config, digits, config.length, digits=only)
    latent = noise(config.samples, trained.config.latent, config)
    pictured, told = (set(even_steps(config.length, min(count, config.length))) for count in (FRAMES, ROWS))
    grids, losses = {0: grid(trained, latent)}, Losses(trained)

    def measure() -> dict[str, float]:
        verdict = judge(sampled(trained, latent))
        return {"share": verdict["histogram"][config.digit]} | {key: verdict[key] for key in KEPT}

    def after(of_iteration: dict[str, torch.Tensor]) -> None:
        losses.generator.append(of_iteration["generator"])
        if trained.iteration in told:
            losses.row(trained.iteration)
        if trained.iteration in pictured:
            grids[trained.iteration] = grid(trained, latent)
        advance(f"iteration {trained.iteration}")

    with progress(config.length) as advance:
        rows = followed(trained, even_steps(config.length, config.points), measure, after)
    real = judge.real
    measured = {
        "rows": rows,
        "losses": losses.rows,
        "real digits": {"share": real["histogram"][config.digit]} | {key: real[key] for key in KEPT},
        "count": len(digits),
    }
    film(grids.values(), config.out.with_suffix(".gif"))
    save(picture(measured, grids, config), config, measured, sentences(measured, config), trained.config.device)
    return measured


def sentences(measured: dict, config: Config) -> list[str]:
    first, last, real = measured["rows"][0], measured["rows"][-1], measured["real digits"]
    ends = {name: measured["losses"][-1][name] for name in LOSSES}
    return [
        f"From the {measured['count']:,} embedded digits {config.digit} alone, in {last['iteration']} iterations: the "
        f"classifier-FID to them went from {first['fid']:.1f} (after {first['iteration']}) to {last['fid']:.1f}. The "
        f"classifier takes {last['share']:.1%} of the samples for a {config.digit}, "
        f"and {real['share']:.1%} of the real ones; W₁ between samples is {last['w1']:.2f}, of real ones "
        f"{real['w1']:.2f}.",
        "The losses at the end: " + ", ".join(f"{name} {value:.3f}" for name, value in ends.items()) + ".",
    ]


def picture(measured: dict, grids: dict[int, torch.Tensor], config: Config):
    """The figure of eight panels: grids on the way, and below them what was measured."""
    drawn, ((*sheets,), (loss, estimate, fid, share)) = panels(2, SHOWN)
    shown = torch.linspace(len(grids) // 8, len(grids) - 1, SHOWN).round().long().tolist()  # not the first noise
    for axes, index in zip(sheets, shown, strict=True):
        iteration = sorted(grids)[index]
        sheet(axes, grids[iteration], SIDE, f"iteration {iteration}")
    losses, rows = measured["losses"], measured["rows"]
    for name, colour in LOSSES.items():
        loss.plot(series(losses, "iteration"), series(losses, name), color=colour, linewidth=1, label=name)
    loss.set(title="the three losses")
    estimate.plot(series(losses, "iteration"), series(losses, "estimate"), color="C3", linewidth=1)
    estimate.set(title="mean f(x) − mean f(G(z))")
    for axes, name, title in ((fid, "fid", "classifier-FID"), (share, "share", f"taken for a {config.digit}")):
        axes.plot(series(rows, "iteration"), series(rows, name), "o-", color="C3", label="generated")
        axes.set(title=title)
    logarithmic(fid)
    share.axhline(measured["real digits"]["share"], color=EXACT, linestyle="--", label="real")
    share.set(ylim=(0, 1.05))
    for axes in (loss, estimate, fid, share):
        axes.set(xlabel="iteration")
        axes.grid(alpha=0.3)
    for axes in (loss, share):
        axes.legend(fontsize="small")
    return drawn


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
