"""Weight clipping against the gradient penalty: gradients through depth, the estimate, weights and value surfaces.

    python examples/clipping.py --out clipping.png

    clipping            |w| ≤ c after each update             (Arjovsky et al. 2017, algorithm 1; seeds S1, S2, S4)
    gradient penalty    λ E (‖∇f(x̂)‖₂ − 1)²                   (Gulrajani et al. 2017, whose figure 1 this is; seed S4)
    one-sided           λ E max(0, ‖∇f(x̂)‖₂ − 1)²

The generator is held fixed: the data and Gaussian noise of variance 1, as in that figure. Critics are ReLU perceptrons,
deep ones with twelve hidden layers and shallow ones with three. Needs the ``gallery`` extra.
"""

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from experiment import CRITIC, EXACT, Options, panels, save, train_critic
from plane import relu_network, surface, values
from script import main, progress
from torch import nn

import wgan_kernels as wk
from wgan_kernels.training.data import Toy, load
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.metrics.transport import w1

ROLL = "swiss-roll"
TOYS = ("8-gaussians", "25-gaussians", ROLL)
DEPTHS = {"deep": 12, "shallow": 3}  # hidden layers
DEEP, SHALLOW = DEPTHS.values()
CLIPS = {"c = 0.001": 0.001, "c = 0.01": 0.01, "c = 0.1": 0.1, "c = 1": 1.0}
TWO_SIDED, ONE_SIDED = "gradient penalty", "one-sided penalty"
WAYS = dict(zip(CLIPS, ("#9ecae1", "#4292c6", "#2171b5", "#08306b"), strict=True))  # with a colour each
WAYS |= {TWO_SIDED: "C8", ONE_SIDED: CRITIC}
SHOWN = ("c = 0.01", TWO_SIDED)  # whose value surfaces and weights are drawn: of the original WGAN, and of WGAN-GP
HELD_OUT = 2000
LOOKS = 24  # how often a critic is measured, in even steps of the logarithm of the updates


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Weight clipping against the gradient penalty: gradients through depth, the estimate, weights, value surfaces."""

    out: Path = Path("clipping.png")
    steps: int = 1000
    lr: float = 2e-3
    width: int = 128
    """Of the hidden layers of shallow critics; deep ones are half as wide."""
    clip_lr: float = 5e-5
    """Of RMSprop, where weights are clipped: the original WGAN's."""
    gp_weight: float = 1.0
    """λ of the gradient penalty; that of the one-sided one is --weight. The paper has 10, and 0.1 for these toys: with
    10 a shallow critic kept the wrong sign for more than 500 updates, with 0.1 its estimate was 5 W₁."""
    full: bool = False
    """The published width of 512 for all critics, and ten times the updates: hours."""

    def check(self) -> None:
        super().check()
        if self.width < 2:
            raise UsageError(f"--width {self.width}: expected a whole number of at least 2")
        if not 0 < self.clip_lr < 1:
            raise UsageError(f"--clip-lr {self.clip_lr}: expected a number between 0 and 1")
        if not 0 < self.gp_weight < float("inf"):
            raise UsageError(f"--gp-weight {self.gp_weight}: expected a number above 0")

    def resolved(self) -> "Config":
        """With what ``full`` means."""
        return replace(self, steps=10 * self.steps, width=512) if self.full else self

    def critic(self, hidden: int) -> nn.Sequential:
        width = self.width // 2 if hidden == DEEP and not self.full else self.width
        return relu_network(2, *[width] * hidden, 1)


class Samples:
    """Of a toy and of its fixed generator, always the same ones in the same order."""

    def __init__(self, toy: Toy, seed: int):
        self.toy, self.random = toy, torch.Generator().manual_seed(seed)
        self.held_out = self(HELD_OUT)

    def __call__(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(count, 2, generator=self.random)
        return self.toy.sample(count, self.random), self.toy.sample(count, self.random) + noise


def train_clipped(critic: nn.Module, clip: float, draw: Samples, config: Config) -> Iterator[int]:
    """Yields the number of each update, after it."""
    optimizer = wk.optim.RMSprop(critic.parameters(), lr=config.clip_lr, clip=clip)
    update = wk.CriticStep(critic, optimizer, penalty=None, tune=False)  # the same numbers every time
    for step in range(1, config.steps + 1):
        update(*draw(config.batch_size))
        yield step


def training(way: str, critic: nn.Module, draw: Samples, config: Config) -> Iterator[int]:
    """By one of WAYS."""
    if way == ONE_SIDED:
        return train_critic(critic, draw, config)
    if way == TWO_SIDED:
        return train_critic(critic, draw, replace(config, weight=config.gp_weight), penalty="gp")
    return train_clipped(critic, CLIPS[way], draw, config)


def weights(critic: nn.Module) -> torch.Tensor:
    """All, in one row; no biases."""
    return torch.cat([layer.weight.detach().flatten() for layer in critic if isinstance(layer, nn.Linear)])


def at_limit(critic: nn.Module, clip: float) -> float:
    """The share of weights that are ±clip."""
    return (weights(critic).abs() >= clip * (1 - 1e-6)).float().mean().item()


def estimate(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    """(E f(real) − E f(fake), the steepest slope there and in between), in float64: some are as small as 1e-30."""
    critic, real, fake = copy.deepcopy(critic).double(), real.double(), fake.double()
    random = torch.Generator().manual_seed(0)
    points = torch.cat([real, fake, wk.interpolate(real, fake, generator=random)]).requires_grad_()
    scores = critic(points)
    (slopes,) = torch.autograd.grad(scores.sum(), points)
    value = scores[: len(real)].mean() - scores[len(real) : len(real) + len(fake)].mean()
    return value.item(), slopes.norm(dim=1).max().item()


def through_depth(critic: nn.Module, points: torch.Tensor) -> list[float]:
    """Mean ‖∂f/∂h‖ at points [B, d], for h the input and the output of each hidden layer, from first to last."""
    layers = [points.double().requires_grad_()]
    scores = layers[0]
    for layer in copy.deepcopy(critic).double():
        scores = layer(scores)
        if isinstance(layer, nn.ReLU):
            layers.append(scores)
    return [of.norm(dim=1).mean().item() for of in torch.autograd.grad(scores.sum(), layers)]


def follow(hidden: int, toy: str, way: str, config: Config, advance) -> tuple[nn.Module, list[dict]]:
    """(the critic, what was measured on the way)"""
    torch.manual_seed(config.seed)
    draw = Samples(load(toy), config.seed)
    critic = config.critic(hidden)
    looks = {round(config.steps ** (look / LOOKS)) for look in range(LOOKS + 1)}
    rows = []
    for step in training(way, critic, draw, config):
        if step in looks:
            value, slope = estimate(critic, *draw.held_out)
            rows.append({"update": step, "value": value, "slope": slope, "over slope": value / slope if slope else 0.0})
            if way in CLIPS:
                rows[-1]["at limit"] = at_limit(critic, CLIPS[way])
        advance(f"{toy}, {hidden} hidden layers, {way}")
    return critic, rows


def run(config: Config) -> dict:
    """Trains, measures and draws; returns what was measured."""
    config = config.resolved()
    critics = [(hidden, ROLL, way) for hidden in (DEEP, SHALLOW) for way in WAYS]
    critics += [(SHALLOW, toy, way) for toy in TOYS if toy != ROLL for way in SHOWN]
    with progress(len(critics) * config.steps) as advance:
        found = {of: follow(*of, config, advance) for of in critics}
    held_out = {toy: Samples(load(toy), config.seed).held_out for toy in TOYS}
    exact = {toy: w1(*samples) for toy, samples in held_out.items()}
    measured = {
        "W₁": exact,
        "rows": {of: {way: found[hidden, ROLL, way][1] for way in WAYS} for of, hidden in DEPTHS.items()},
        "through depth": {way: through_depth(found[DEEP, ROLL, way][0], torch.cat(held_out[ROLL])) for way in WAYS},
        "ends": {toy: {way: found[SHALLOW, toy, way][1][-1] for way in SHOWN} for toy in TOYS},
    }
    shown = {(toy, way): found[SHALLOW, toy, way][0] for toy in TOYS for way in SHOWN}
    data = {toy: samples[0] for toy, samples in held_out.items()}
    save(picture(measured, shown, data), config, measured, sentences(measured, config))
    return measured


def sentences(measured: dict, config: Config) -> list[str]:
    exact, ways = measured["W₁"][ROLL], measured["rows"]
    ratios = {way: norms[0] / norms[-1] for way, norms in measured["through depth"].items()}
    quotients = {of: {way: rows[way][-1]["over slope"] / exact for way in WAYS} for of, rows in ways.items()}
    ends = {way: rows[-1]["value"] / exact for way, rows in ways["shallow"].items()}
    half = {way: _first(rows, exact / 2) for way, rows in ways["shallow"].items()}
    limits = {way: [row["at limit"] for row in ways["shallow"][way]] for way in CLIPS}
    return [
        f"On the swiss roll, after {config.steps} updates. Deep critics ({DEEP} hidden layers): the gradient for the "
        f"input over that for the last hidden layer is {_each(ratios, '.1g')}.",
        f"W₁ is {exact:.3f} (POT, {HELD_OUT:,} samples of each). Deep critics' estimates over their steepest slopes, "
        f"in units of W₁: {_each(quotients['deep'], '.2f')}. Those of shallow critics ({SHALLOW} hidden layers): "
        f"{_each(quotients['shallow'], '.2f')}; the updates until half of W₁: {_each(half, '')}.",
        f"Shallow critics' estimates themselves, in units of W₁: {_each(ends, '.2g')}.",
        "Of their weights, at the limit after the first update and the last: "
        + ", ".join(f"{first:.0%} and {last:.0%} ({way})" for way, (first, *_, last) in limits.items())
        + ".",
    ]


def _first(rows: list[dict], least: float) -> int | str:
    """The update at which the quotient was first seen to be so large."""
    return next((row["update"] for row in rows if row["over slope"] >= least), "never")


def _each(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{value:{form}} ({way})" for way, value in values.items())


def picture(measured: dict, shown: dict[tuple[str, str], nn.Module], data: dict[str, torch.Tensor]):
    """The figure of twelve panels: what was measured; below it value surfaces and weights, clipped and penalised."""
    drawn, ((depth, limit, *quotients), *below) = panels(3, 4)
    exact = measured["W₁"][ROLL]
    for way, colour in WAYS.items():
        depth.semilogy(measured["through depth"][way], ".-", color=colour, label=way)
        for axes, of in zip(quotients, DEPTHS, strict=True):
            rows = measured["rows"][of][way]
            axes.semilogx(_column(rows, "update"), [row["over slope"] / exact for row in rows], color=colour, label=way)
        if way in CLIPS:
            rows = measured["rows"]["shallow"][way]
            limit.semilogx(_column(rows, "update"), _column(rows, "at limit"), color=colour, label=way)
    depth.set(title=f"size of the gradient, {DEEP} hidden layers", xlabel="layer; 0 is the input")
    limit.set(title=f"share of weights at ±c, {SHALLOW} hidden layers", xlabel="update", ylim=(-0.03, 1.03))
    for axes, hidden in zip(quotients, DEPTHS.values(), strict=True):
        axes.axhline(1, color=EXACT, linestyle="--", label="W₁")
        axes.set(
            title=f"estimate ÷ steepest slope, {hidden} hidden layers", xlabel="update", ylabel="W₁", ylim=(-0.3, 1.1)
        )
    for axes in (depth, limit, *quotients):
        axes.grid(alpha=0.3)
    drawn.legend(*quotients[0].get_legend_handles_labels(), ncols=len(WAYS) + 1, loc="outside upper center")
    for (*surfaces, histogram), way in zip(below, SHOWN, strict=True):
        for axes, toy in zip(surfaces, TOYS, strict=True):
            surface(axes, values(shown[toy, way]), data[toy])
            axes.set(title=f"{toy.replace('-', ' ')}, {way}")
        of = weights(shown[ROLL, way])
        histogram.hist(of, 80, weights=torch.full_like(of, 1 / len(of)), color=WAYS[way])
        histogram.set(title=f"weights, {way}", xlabel="weight", ylabel="share")
    return drawn


def _column(rows: list[dict], name: str) -> list[float]:
    return [row[name] for row in rows]


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
