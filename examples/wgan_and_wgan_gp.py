"""WGAN and WGAN-GP on MNIST as one post compares them: the same noise through both, and the classifier-FID on the way.

    python examples/wgan_and_wgan_gp.py --out wgan_and_wgan_gp.png
    python examples/wgan_and_wgan_gp.py --full          4,000 iterations of WGAN, 1,000 of WGAN-GP

The presets s3-wgan and s3-wgan-gp (seed S3): RMSprop 1e-5 with weights clipped to ±0.01, RMSprop 1e-4 with the gradient
penalty. What the post calls a batch is five updates of the critic and one of the generator: an iteration here. Needs
the ``gallery`` extra.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openmp  # noqa: F401 (before torch)
import torch
from digits import ALL, Options, all_digits, compare_fid, even_steps, followed, noise, sampled, sheet, trainer
from experiment import panels, save
from script import main, progress

from wgan_kernels.training import presets
from wgan_kernels.training.data import Images
from wgan_kernels.training.device import resolve_device
from wgan_kernels.training.metrics import judge_of

METHODS = {"WGAN": ("s3-wgan", "C0"), "WGAN-GP": ("s3-wgan-gp", "C3")}
SHOWN, SIDE = 3, 8  # grids of each method, digits along their edge
KEPT = ("fid", "confidence", "modes", "w1", "sliced_w")


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """WGAN and WGAN-GP on MNIST as one post compares them: the same noise through both, and the classifier-FID."""

    out: Path = Path("wgan_and_wgan_gp.png")
    iterations: int = 60
    full: bool = False
    """The post's lengths: 4,000 iterations of WGAN, 1,000 of WGAN-GP; some 25 minutes on two cores."""
    points: int = 4
    samples: int = 500
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """bfloat16: about half the time, on CPUs that have its instructions."""

    def length(self, method: str) -> int:
        return presets.PRESETS[METHODS[method][0]].iterations if self.full else self.iterations


def follow(method: str, config: Config, digits: Images, judge, advance) -> tuple[list[dict], list[torch.Tensor]]:
    """(the figures at each point, [SIDE², 1, 28, 28] from the same noise at each)"""
    preset = presets.PRESETS[METHODS[method][0]]
    trained = trainer(preset, config, digits, config.length(method), precision=config.precision)
    latent = noise(config.samples, preset.latent, config)
    grids, judging, started = [], 0.0, time.monotonic()

    def measure() -> dict[str, float]:
        nonlocal judging
        began = time.monotonic()
        samples = sampled(trained, latent)
        grids.append(samples[0][: SIDE**2])
        verdict = judge(samples)
        figures = {"seconds": began - started - judging} | {key: verdict[key] for key in KEPT}
        judging += time.monotonic() - began
        return figures

    at = even_steps(config.length(method), config.points)
    rows = followed(trained, at, measure, lambda losses: advance(f"{method}: iteration {trained.iteration}"))
    return rows, grids


def run(config: Config) -> dict:
    """Trains, judges and draws; returns what was measured."""
    digits = all_digits(config)
    judge = judge_of(digits, "mnist", ALL)
    with progress(sum(config.length(method) for method in METHODS)) as advance:
        found = {method: follow(method, config, digits, judge, advance) for method in METHODS}
    rows = {method: of[0] for method, of in found.items()}
    measured = {"rows": rows, "real digits": {key: judge.real[key] for key in KEPT}}
    drawn = picture(rows, {method: of[1] for method, of in found.items()})
    save(drawn, config, measured, sentences(measured), resolve_device(config.device))
    return measured


def sentences(measured: dict) -> list[str]:
    rows = measured["rows"]
    told = [
        f"{method}, {of[-1]['iteration']} iterations in {of[-1]['seconds']:.0f} s "
        f"({of[-1]['seconds'] / of[-1]['iteration']:.2f} s each): classifier-FID {of[-1]['fid']:.1f} (after "
        f"{of[0]['iteration']}: {of[0]['fid']:.1f}), the classifier's confidence {of[-1]['confidence']:.3f}, "
        f"{of[-1]['modes']} of ten digits, W₁ between samples {of[-1]['w1']:.2f}."
        for method, of in rows.items()
    ]
    real = measured["real digits"]
    wgan, wgan_gp = (of[-1]["fid"] for of in rows.values())
    passed = next((row for row in rows["WGAN-GP"] if row["fid"] <= wgan), None)
    compared = f"The FID of WGAN-GP is {wgan_gp / wgan:.3g} times that of WGAN"
    if passed:
        compared += (
            f", whose last one it had reached by iteration {passed['iteration']}, after {passed['seconds']:.0f} s"
        )
    return [
        *told,
        f"{compared}. Real digits: confidence {real['confidence']:.3f}, W₁ {real['w1']:.2f}.",
    ]


def picture(rows: dict[str, list[dict]], grids: dict[str, list[torch.Tensor]]):
    """The figure of eight panels: a row of grids for each method, and the FID by iterations and by time."""
    drawn, axes = panels(2, SHOWN + 1)
    for line, method in enumerate(METHODS):
        chosen = torch.linspace(0, len(rows[method]) - 1, SHOWN).round().long().tolist()
        for column, index in enumerate(chosen):
            row = rows[method][index]
            title = f"{method}, iteration {row['iteration']}: FID {row['fid']:.1f}"
            sheet(axes[line, column], grids[method][index], SIDE, title)
    colours = {method: colour for method, (_, colour) in METHODS.items()}
    for place, over in zip(axes[:, -1], ("iteration", "seconds"), strict=True):
        compare_fid(place, rows, colours, over)
    return drawn


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
