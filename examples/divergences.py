"""Cross-entropy, KL, JS and the earth mover's distance of two Gaussians that move apart, and their gradients.

    python examples/divergences.py --out divergences.png

    p = N(0, 1), q = N(μ, 1):    H(p, q) = ½ log 2πe + ½ μ²,   KL(p‖q) = ½ μ²,   JS by quadrature,   W₁ = |μ|

for μ from 0 to 35, as in seeds S0b and S2. Beside what is known stands what samples tell: W₁ by a critic, JS and KL by
a discriminator, cross-entropy by a Gaussian fitted to the samples of q. JS has the factor ½ of its definition, so that
it ends at log 2; S2 leaves it out. Needs the ``train`` extra.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from experiment import (
    CRITIC,
    CROSS_ENTROPY,
    EXACT,
    JS,
    KL,
    Options,
    jensen_shannon,
    network,
    panels,
    save,
    train_critic,
    train_discriminator,
)
from script import main, progress
from torch.nn.functional import logsigmoid

from wgan_kernels.training.errors import UsageError

HELD_OUT = 16384
ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of p
MEASURES = {"cross-entropy": CROSS_ENTROPY, "KL": KL, "JS": JS, "W₁": CRITIC}  # with a colour each


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Cross-entropy, KL, JS and the earth mover's distance of two Gaussians that move apart, and their gradients."""

    out: Path = Path("divergences.png")
    steps: int = 400
    means: tuple[float, ...] = (0, 0.5, 1, 2, 3, 4, 6, 9, 13, 18, 25, 35)
    """μ, where samples are taken."""
    full: bool = False
    """Every whole μ from 0 to 35, and four times the updates."""

    def check(self) -> None:
        super().check()
        if not self.means or not all(0 <= mean <= 1000 for mean in self.means):
            raise UsageError(f"--means {' '.join(map(str, self.means))}: expected numbers from 0 to 1000")


def exact(mean: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each measure at μ [n], float64, differentiable."""
    return {
        "cross-entropy": ENTROPY + mean.square() / 2,
        "KL": mean.square() / 2,
        "JS": js_by_quadrature(mean),
        "W₁": mean.abs(),
    }


def js_by_quadrature(mean: torch.Tensor) -> torch.Tensor:
    """JS = log 2 − E_p log(1 + q ÷ p), since both halves are alike; log q(x) ÷ p(x) = μ x − ½ μ². Trapezoids."""
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    ratio = mean[:, None] * x - mean.square()[:, None] / 2
    return math.log(2) + torch.trapezoid(density * logsigmoid(-ratio), x)


def exact_gradients(mean: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each measure's derivative at μ [n]."""
    mean = mean.clone().requires_grad_()
    return {name: torch.autograd.grad(value.sum(), mean)[0] for name, value in exact(mean).items()}


def found(mean: float, config: Config, advance) -> tuple[dict[str, float], dict[str, float]]:
    """What samples and networks tell of each measure, and of its derivative, at μ.

    Derivatives are those that a generator gets: through its samples, with the networks held fixed. For KL that is
    Nowozin et al.'s (2016) bound E_p T − E_q exp(T − 1), T = 1 + the logit.
    """
    torch.manual_seed(config.seed)
    unit = math.sqrt(1 + mean**2 / 4)  # the standard deviation of both samples together
    critic, discriminator = network(1, config.width), network(1, config.width)

    def inputs(x: torch.Tensor) -> torch.Tensor:
        return (x - mean / 2) / unit

    def draw(count: int):
        return inputs(torch.randn(count, 1)), inputs(mean + torch.randn(count, 1))

    for _ in train_critic(critic, draw, config):
        advance(f"critic at μ = {mean:g}")
    for _ in train_discriminator(discriminator, draw, config):
        advance(f"discriminator at μ = {mean:g}")
    place = torch.tensor(float(mean), requires_grad=True)
    real, fake = torch.randn(HELD_OUT, 1), place + torch.randn(HELD_OUT, 1)
    of_real, of_fake = discriminator(inputs(real)), discriminator(inputs(fake))
    fitted = torch.distributions.Normal(fake.mean(), fake.std())
    values = {
        "cross-entropy": -fitted.log_prob(real).mean(),
        "KL": of_real.mean() + 1 - of_fake.exp().mean(),
        "JS": jensen_shannon(of_real, of_fake),
        "W₁": unit * (critic(inputs(real)) - critic(inputs(fake))).mean(),
    }
    slopes = {name: torch.autograd.grad(value, place, retain_graph=True)[0].item() for name, value in values.items()}
    return {name: value.item() for name, value in values.items()}, slopes


def run(config: Config) -> dict:
    """Trains and draws; returns what was measured."""
    if config.full:
        config = replace(config, means=tuple(range(36)), steps=4 * config.steps)
    with progress(2 * config.steps * len(config.means)) as advance:
        pairs = [found(mean, config, advance) for mean in config.means]
    values, slopes = ({name: [pair[index][name] for pair in pairs] for name in MEASURES} for index in (0, 1))
    at = torch.tensor(config.means, dtype=torch.float64)
    known, inclines = ({name: of.tolist() for name, of in at_all(at).items()} for at_all in (exact, exact_gradients))
    measured = {"means": list(config.means), "found": values, "known": known}
    measured |= {"gradients found": slopes, "gradients known": inclines}
    save(picture(measured), config, measured, sentences(measured))
    return measured


def sentences(measured: dict) -> list[str]:
    values, known, means = measured["found"], measured["known"], measured["means"]
    slopes, inclines = measured["gradients found"], measured["gradients known"]
    far = max(range(len(means)), key=means.__getitem__)

    def error(name: str) -> float:
        """The largest one, relative to the value."""
        return max(abs(v / k - 1) for v, k in zip(values[name], known[name], strict=True) if k)

    off = max(abs(v - k) for v, k in zip(values["JS"], known["JS"], strict=True))
    return [
        f"Found from samples at {len(means)} values of μ: W₁ within {error('W₁'):.1%}, cross-entropy (by a fitted "
        f"Gaussian) within {error('cross-entropy'):.1%}, JS within {off:.3f} of the known value.",
        f"The discriminator's KL loses track: at μ = {means[far]:g} it says {values['KL'][far]:.1f} where KL is "
        f"{known['KL'][far]:.1f}.",
        "Gradients there, as a generator gets them, with the known ones in brackets: "
        + ", ".join(f"{name} {slopes[name][far]:.2g} ({inclines[name][far]:.2g})" for name in MEASURES)
        + ".",
    ]


def picture(measured: dict):
    """The figure of eight panels: each measure, and below it its gradient."""
    drawn, rows = panels(2, len(MEASURES))
    line = torch.linspace(0, max(measured["means"]), 1401, dtype=torch.float64)[1:]  # at 0, |μ| has no derivative
    lines = exact(line), exact_gradients(line)
    dots = measured["found"], measured["gradients found"]
    for row, of_line, of_dots, prefix in zip(rows, lines, dots, ("", "d/dμ of "), strict=True):
        for axes, (name, colour) in zip(row, MEASURES.items(), strict=True):
            axes.plot(line, of_line[name], color=EXACT, label="known")
            axes.plot(measured["means"], of_dots[name], "o", color=colour, markersize=5, label="from samples")
            axes.set(title=prefix + name, xlabel="μ")
            axes.grid(alpha=0.3)
            axes.legend()
    return drawn


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
