"""Whether the loss tells how good the samples are: the critic's estimate, and the loss of a GAN, beside classifier-FID.

    python examples/quality_curve.py --out quality_curve.png

    estimate of WGAN and WGAN-GP   E f(real) − E f(fake)                  (Arjovsky et al. 2017, section 4.2; seed S1)
    loss of a GAN's generator      E −log D(fake)                         (Goodfellow et al. 2014, section 3; seed S0)

A curve is what training itself shows: the mean over the iterations between two points, each a batch. WGAN and WGAN-GP
are the compact presets; the GAN has WGAN's networks, and one update of each in turn. Needs the ``gallery`` extra.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import openmp  # noqa: F401 (before torch)
import torch
from digits import ALL, Options, all_digits, even_steps, followed, logarithmic, noise, series, sheet, trainer
from experiment import EXACT, discriminator_update, panels, save
from script import check_flags, main, progress
from torch import nn
from torch.nn.functional import softplus

import wgan_kernels as wk
from wgan_kernels.training import presets
from wgan_kernels.training.data import Images
from wgan_kernels.training.device import resolve_device
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.metrics import correlation, judge_of
from wgan_kernels.training.trainer import Trainer

METHODS = {"WGAN": "C0", "WGAN-GP": "C3", "GAN": "C4"}
SHARES = {"WGAN": 1.5, "WGAN-GP": 1, "GAN": 3}  # of the iterations, in 0.33, 0.43 and 0.15 s of one core
CURVES = {"WGAN": "E f(real) − E f(fake)", "WGAN-GP": "E f(real) − E f(fake)", "GAN": "E −log D(fake)"}
QUOTIENT = "estimate ÷ slope"
SCORED = 640  # samples of each kind for the quotient of estimate and slope
SHOWN, ROWS = 6, 6  # points whose samples are shown, samples of each
KEPT = ("fid", "confidence", "w1", "sliced_w")


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Whether the loss tells how good the samples are: WGAN, WGAN-GP and a GAN on MNIST."""

    out: Path = Path("quality_curve.png")
    iterations: int = 110
    """Generator updates of WGAN-GP. WGAN makes 1.5 times and the GAN 3 times as many, in about the same time."""
    full: bool = False
    """The presets' own lengths: WGAN and the GAN 6,000 iterations, WGAN-GP 1,000; nearly an hour on two cores."""
    points: int = 16
    samples: int = 1000
    gan_lr: float = 2e-4
    """Of the GAN's two Adams, whose β₁ is 0.5 (Radford et al. 2015, section 4)."""

    def check(self) -> None:
        super().check()
        check_flags(self, {"points": 4})
        if not 0 < self.gan_lr < 1:
            raise UsageError(f"--gan-lr {self.gan_lr}: expected a number between 0 and 1")

    def length(self, method: str) -> int:
        if self.full:
            return preset_of(method).iterations
        return int(self.iterations * SHARES[method])


class DiscriminatorStep:
    """Goes down on −log D(real) − log(1 − D(fake)); D's logit is the critic's score."""

    def __init__(self, discriminator: nn.Module, lr: float):
        self.discriminator, self.optimizer = discriminator, _adam(discriminator, lr)

    def __call__(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": discriminator_update(self.discriminator, self.optimizer, real, fake)}


class GanGeneratorStep:
    """Goes down on −log D(fake)."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module, lr: float):
        self.generator, self.discriminator, self.optimizer = generator, discriminator, _adam(generator, lr)

    def __call__(self, latent: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = softplus(-self.discriminator(self.generator(latent))).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    @torch.no_grad()
    def sample(self, latent: torch.Tensor) -> torch.Tensor:
        return self.generator(latent)


def _adam(network: nn.Module, lr: float) -> torch.optim.Optimizer:
    return wk.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))


def preset_of(method: str):
    return presets.COMPACT["wgan-gp" if method == "WGAN-GP" else "wgan"]


def trainer_of(method: str, config: Config, digits: Images) -> Trainer:
    """The preset's; for the GAN its two updates are others, and that of the discriminator comes once."""
    if method != "GAN":
        return trainer(preset_of(method), config, digits, config.length(method))
    made = trainer(preset_of(method), config, digits, config.length(method), n_critic=1)
    made.critic_step = DiscriminatorStep(made.critic, config.gan_lr)
    made.generator_step = GanGeneratorStep(made.generator, made.critic, config.gan_lr)
    return made


def curve(method: str, losses: dict[str, torch.Tensor], weight: float) -> torch.Tensor:
    """What an iteration's losses say of the samples' quality. weight: of the penalty."""
    if method == "GAN":
        return losses["generator"]
    return weight * losses.get("penalty", 0.0) - losses["critic"]


def over_slope(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, batch: int) -> dict[str, float]:
    """The estimate on real and fake [N, 1, 28, 28], the mean ‖∇f‖ between them, and their quotient: an estimate in
    pixels' units, whatever the critic's scale. In batches as in training: BatchNorm ties a score to its batch.
    """
    random = torch.Generator(real.device).manual_seed(0)
    estimates, slopes = [], []
    for some_real, some_fake in zip(real.split(batch), fake.split(batch), strict=True):
        points = wk.interpolate(some_real, some_fake, generator=random).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(points).sum(), points)
        slopes.append(gradient.flatten(1).norm(dim=1).mean())
        with torch.no_grad():
            estimates.append(critic(some_real).mean() - critic(some_fake).mean())
    estimate, slope = (torch.stack(of).mean().item() for of in (estimates, slopes))
    return {"estimate": estimate, "slope": slope, QUOTIENT: estimate / slope}


def follow(method: str, config: Config, digits: Images, judge, advance) -> tuple[list[dict], torch.Tensor]:
    """(the figures at each point, samples [ROWS · SHOWN, 1, 28, 28] with a column for each of some points)"""
    trained = trainer_of(method, config, digits)
    batch, weight = trained.config.batch_size, trained.config.penalty_weight
    latent = noise(config.samples, trained.config.latent, config)
    count = min(config.samples, SCORED) // batch * batch
    real = digits.sample(count, torch.Generator(digits.images.device).manual_seed(config.seed))
    since, pictures = [], []

    def after(losses: dict[str, torch.Tensor]) -> None:
        since.append(curve(method, losses, weight))
        advance(f"{method}: iteration {trained.iteration}")

    def measure() -> dict[str, float]:
        samples = list(trained.sample(latent))
        pictures.append(samples[0][:ROWS].cpu())
        figures = {"curve": torch.stack(since).mean().item()}
        since.clear()
        if method != "GAN":
            figures |= over_slope(trained.critic, real, torch.cat(samples)[:count], batch)
        verdict = judge(samples)
        return figures | {key: verdict[key] for key in KEPT}

    rows = followed(trained, even_steps(config.length(method), config.points), measure, after)
    return rows, torch.stack([pictures[index] for index in _shown(rows)], 1).flatten(0, 1)


def correlations(rows: list[dict]) -> dict[str, dict[str, tuple[float, float]]]:
    """Pearson's and Spearman's of curve and quotient with the FID, with that of the second half, and with W₁."""
    late = rows[len(rows) // 2 :]
    return {
        name: {
            other: correlation(series(of, name), series(of, key))
            for other, of, key in (("FID", rows, "fid"), ("FID, second half", late, "fid"), ("W₁", rows, "w1"))
        }
        for name in ("curve", QUOTIENT)
        if name in rows[0]
    }


def run(config: Config) -> dict:
    """Trains, judges and draws; returns what was measured."""
    digits = all_digits(config)
    judge = judge_of(digits, "mnist", ALL)
    with progress(sum(config.length(method) for method in METHODS)) as advance:
        found = {method: follow(method, config, digits, judge, advance) for method in METHODS}
    rows = {method: of[0] for method, of in found.items()}
    measured = {
        "rows": rows,
        "correlations": {method: correlations(of) for method, of in rows.items()},
        "real digits": {key: judge.real[key] for key in KEPT},
    }
    drawn = picture(rows, {method: of[1] for method, of in found.items()}, measured["correlations"])
    save(drawn, config, measured, sentences(measured), resolve_device(config.device))
    return measured


def sentences(measured: dict) -> list[str]:
    told = []
    for method, rows in measured["rows"].items():
        first, last, highest = rows[0], rows[-1], max(rows, key=lambda row: row["curve"])
        found = measured["correlations"][method]
        told.append(
            f"{method}, iterations {first['iteration']} to {last['iteration']}: the classifier-FID went from "
            f"{_short(first['fid'])} to {_short(last['fid'])}, {CURVES[method]} from {_short(first['curve'])} to "
            f"{_short(last['curve'])}, highest at iteration {highest['iteration']} ({_short(highest['curve'])}). "
            f"Correlation with the FID {_pair(found['curve']['FID'])}, over the second half "
            f"{_pair(found['curve']['FID, second half'])}; with W₁ between samples {_pair(found['curve']['W₁'])}."
        )
        if QUOTIENT in found:
            told[-1] += (
                f" Over the critic's mean slope, which went from {_short(first['slope'])} to {_short(last['slope'])}, "
                f"the estimate went from {_short(first[QUOTIENT])} to {_short(last[QUOTIENT])}: correlation with the "
                f"FID {_pair(found[QUOTIENT]['FID'])}."
            )
    return told


def _short(value: float) -> str:
    """Three digits, without an exponent where one can do without."""
    return f"{float(f'{value:.3g}'):g}"


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f}, of ranks {pair[1]:.2f}"


def picture(rows: dict[str, list[dict]], samples: dict[str, torch.Tensor], found: dict):
    """The figure of twelve panels: a column for each method, and one that compares them."""
    drawn, axes = panels(3, 4)
    for column, (method, colour) in enumerate(METHODS.items()):
        of, (over_time, against, grid) = rows[method], axes[:, column]
        _over_time(over_time, of, colour, CURVES[method])
        over_time.set(title=method)
        _against_fid(against, of, "curve", colour, method)
        title = f"correlation {_pair(found[method]['curve']['FID'])}".replace("-", "−")
        against.set(xlabel=CURVES[method], title=title)
        at = ", ".join(str(of[index]["iteration"]) for index in _shown(of))
        sheet(grid, samples[method], SHOWN, f"iterations {at}")
    quotient, against, bars = axes[:, 3]
    for method, colour in list(METHODS.items())[:2]:
        of = rows[method]
        quotient.plot(series(of, "iteration"), series(of, QUOTIENT), "o-", color=colour, markersize=4, label=method)
        _against_fid(against, of, QUOTIENT, colour, method)
    quotient.set(title="estimate ÷ mean slope", xlabel="iteration")
    against.set(title="estimate ÷ mean slope, and the FID", xlabel="estimate ÷ mean slope")
    for place in (quotient, against):
        place.grid(alpha=0.3)
        place.legend(fontsize="small")
    _bars(bars, found)
    return drawn


def _over_time(axes, rows: list[dict], colour: str, label: str) -> None:
    """The curve, and the FID on an axis of its own."""
    at = series(rows, "iteration")
    axes.plot(at, series(rows, "curve"), "o-", color=colour, markersize=4)
    right = axes.twinx()
    right.plot(at, series(rows, "fid"), "s--", color=EXACT, markersize=3)
    logarithmic(right)
    axes.set(xlabel="iteration", ylim=0)
    axes.set_ylabel(f"{label}  (•)", color=colour)
    right.set_ylabel("classifier-FID  (▪)", color=EXACT)
    axes.grid(alpha=0.3)


def _against_fid(axes, rows: list[dict], name: str, colour: str, label: str) -> None:
    """The points in their order, from the first, hollow, to the last, large."""
    x, y = series(rows, name), series(rows, "fid")
    axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=0.5, label=label)
    axes.plot(x[0], y[0], "o", color=colour, markersize=9, fillstyle="none")
    axes.plot(x[-1], y[-1], "o", color=colour, markersize=9)
    axes.set(ylabel="classifier-FID")
    axes.grid(alpha=0.3)
    logarithmic(axes)


def _bars(axes, found: dict) -> None:
    """The correlations of ranks with the FID."""
    bars = {f"{method}{' ÷ slope' if name == QUOTIENT else ''}": (METHODS[method], of)
            for method, by in found.items() for name, of in by.items()}  # fmt: skip
    for shift, part, shade, label in ((-0.2, "FID", 1.0, "all points"), (0.2, "FID, second half", 0.4, "second half")):
        lengths = [of[part][1] for _, of in bars.values()]
        places = [place + shift for place in range(len(bars))]
        axes.barh(places, lengths, 0.4, color=[colour for colour, _ in bars.values()], alpha=shade, label=label)
    axes.set_yticks(range(len(bars)), bars, fontsize="small")
    axes.invert_yaxis()
    axes.axvline(0, color=EXACT, linewidth=0.8)
    axes.set(title="correlation of ranks with the FID", xlim=(-1.05, 1.05))
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small")


def _shown(rows: list[dict]) -> list[int]:
    """Which rows' samples are in the figure."""
    return torch.linspace(0, len(rows) - 1, SHOWN).round().long().tolist()


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
