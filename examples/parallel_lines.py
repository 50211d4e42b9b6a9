"""Two parallel lines: three distances between them, the gradient each gives, and what is learned by it.

    python examples/parallel_lines.py --out parallel_lines.png

    P_0 = (0, z), P_θ = (θ, z), z ~ U(0, 1):    W₁ = |θ|,  JS = log 2,  KL = ∞  for θ ≠ 0;  all are 0 for θ = 0

(Arjovsky et al. 2017, example 1; seed S1.) A critic finds W₁, a discriminator JS and KL. Then θ is learned from 1 on,
by gradient descent on a critic's loss and on both losses of a discriminator: log(1 − D), which is JS's, and −log D.
Needs the ``train`` extra.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from experiment import (
    CRITIC,
    EXACT,
    JS,
    KL,
    Options,
    adam,
    discriminator_update,
    jensen_shannon,
    network,
    panels,
    save,
    steepest,
    train_critic,
    train_discriminator,
)
from script import main, progress
from torch import nn
from torch.nn.functional import logsigmoid

import wgan_kernels as wk
from wgan_kernels.training.errors import UsageError

HELD_OUT, START = 4096, 1.0
LAST = 50  # updates of θ, at the end, from whose range one sees whether it has settled
LOSSES = {"WGAN": CRITIC, "GAN, log(1 − D)": JS, "GAN, −log D": "C9"}  # with a colour each


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Two parallel lines: three distances between them, the gradient each gives, and what is learned by it."""

    out: Path = Path("parallel_lines.png")
    steps: int = 300
    distances: int = 11
    """Values of θ from −1 to 1 at which the distances are taken; an odd number, so that 0 is one."""
    updates: int = 300
    """Of θ, by each loss."""
    theta_lr: float = 0.02
    """Learning rate of θ: plain gradient descent."""
    n_critic: int = 5
    """Updates of critic or discriminator for one of θ; before the first, --steps."""
    full: bool = False
    """The original schedule: 100 updates for each of the first 25 of θ and every 500th; and 41 values of θ."""

    def check(self) -> None:
        super().check()
        if self.distances < 3 or self.distances % 2 == 0:
            raise UsageError(f"--distances {self.distances}: expected an odd number of at least 3")
        for name in ("updates", "n_critic"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)}: expected a whole number of at least 1")
        if not 0 < self.theta_lr <= 1:
            raise UsageError(f"--theta-lr {self.theta_lr}: expected a number between 0 and 1")

    def updates_before(self, update: int) -> int:
        """Of the critic, before that update of θ, counted from 0."""
        if update == 0:
            return self.steps
        return 100 if self.full and (update < 25 or update % 500 == 0) else self.n_critic


class Line(nn.Module):
    """z [B, 1] → (θ, z) [B, 2]."""

    def __init__(self, theta: float):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.theta.expand_as(z), z], 1)


def loss_of(name: str, scores: torch.Tensor) -> torch.Tensor:
    """What θ goes down on, of a critic's scores or a discriminator's logits of generated samples."""
    if name == "WGAN":
        return wk.generator_loss(scores)
    return logsigmoid(-scores).mean() if name == "GAN, log(1 − D)" else -logsigmoid(scores).mean()


def gradient(name: str, scorer: nn.Module, line: Line, z: torch.Tensor) -> float:
    """dL/dθ."""
    return torch.autograd.grad(loss_of(name, scorer(line(z))), line.theta)[0].item()


def measure(theta: float, config: Config, advance) -> dict:
    """Trains a critic and a discriminator between the lines: distances, gradients, and both networks' slopes."""
    torch.manual_seed(config.seed)
    real, line = Line(0.0), Line(theta)
    critic, discriminator = network(2, config.width), network(2, config.width)

    @torch.no_grad()
    def draw(count: int):
        return real(torch.rand(count, 1)), line(torch.rand(count, 1))

    z = torch.rand(HELD_OUT, 1)
    divergence = []
    for _ in train_critic(critic, draw, config):
        advance(f"critic at θ = {theta:+.2f}")
    for _ in train_discriminator(discriminator, draw, config):
        with torch.no_grad():
            divergence.append(discriminator(real(z)).mean().item())
        advance(f"discriminator at θ = {theta:+.2f}")
    with torch.no_grad():
        value = (critic(real(z)) - critic(line(z))).mean().item()
        js = jensen_shannon(discriminator(real(z)), discriminator(line(z))).item()
    between = wk.interpolate(real(z).detach(), line(z).detach())
    scorers = dict(zip(LOSSES, (critic, discriminator, discriminator), strict=True))
    return {
        "theta": theta,
        "critic": value,
        "critic, over its steepest slope": value / steepest(critic, torch.cat([between, real(z), line(z)])),
        "JS": js,
        "KL": divergence,
        "gradients": {name: gradient(name, scorer, line, z) for name, scorer in scorers.items()},
        "networks": (critic, discriminator),
    }


def learn(name: str, config: Config, advance) -> list[float]:
    """θ after each update, by that loss, from START on."""
    torch.manual_seed(config.seed)
    real, line, scorer = Line(0.0), Line(START), network(2, config.width)
    optimizer = adam(scorer, config.lr)
    of_theta = torch.optim.SGD(line.parameters(), lr=config.theta_lr)
    critic_step = wk.CriticStep(scorer, optimizer, "one-sided", config.weight, tune=False)
    path = []
    for update in range(config.updates):
        for _ in range(config.updates_before(update)):
            with torch.no_grad():
                samples = real(torch.rand(config.batch_size, 1)), line(torch.rand(config.batch_size, 1))
            if name == "WGAN":
                critic_step(*samples)
            else:
                discriminator_update(scorer, optimizer, *samples)
        of_theta.zero_grad()
        loss_of(name, scorer(line(torch.rand(config.batch_size, 1)))).backward()
        of_theta.step()
        path.append(line.theta.item())
        advance(f"{name}: θ = {path[-1]:.3f}")
    return path


def run(config: Config) -> dict:
    """Trains and draws; returns what was measured."""
    if config.full:
        config = replace(config, distances=41)
    last = config.distances - 1
    thetas = [(2 * index - last) / last for index in range(config.distances)]  # 0 is met exactly
    with progress(2 * config.steps * len(thetas) + len(LOSSES) * config.updates) as advance:
        found = [measure(theta, config, advance) for theta in thetas]
        paths = {name: learn(name, config, advance) for name in LOSSES}
    apart = [row for row in found if row["theta"]]
    off = {
        key: max(abs(row[key] / abs(row["theta"]) - 1) for row in apart)
        for key in ("critic", "critic, over its steepest slope")
    }
    sizes = {name: [abs(row["gradients"][name]) for row in apart] for name in LOSSES}
    last = {name: path[-LAST:] for name, path in paths.items()}
    measured = {
        "rows": [{key: value for key, value in row.items() if key not in ("networks", "KL")} for row in found],
        "largest relative error": off,
        "largest error of JS": max(abs(row["JS"] - math.log(2)) for row in apart),
        "KL at θ = 1": {"a tenth of the updates": found[-1]["KL"][config.steps // 10], "all": found[-1]["KL"][-1]},
        "sizes of the gradient": {name: [min(of), max(of)] for name, of in sizes.items()},
        "last θ": {name: [min(of), max(of)] for name, of in last.items()},
    }
    save(picture(found, paths, config), config, measured, sentences(measured, config))
    return measured


def sentences(measured: dict, config: Config) -> list[str]:
    off, kl = measured["largest relative error"], measured["KL at θ = 1"]
    sizes, last = measured["sizes of the gradient"], measured["last θ"]
    return [
        f"At {config.distances} values of θ from −1 to 1 the critic's value is within {off['critic']:.1%} of |θ|, and "
        f"over its steepest slope within {off['critic, over its steepest slope']:.2%} (θ ≠ 0).",
        f"The discriminator's JS is within {measured['largest error of JS']:.0e} of log 2 at every θ ≠ 0. Its KL, "
        f"which is ∞, was {kl['a tenth of the updates']:.1f} after {config.steps // 10} updates at θ = 1 and "
        f"{kl['all']:.1f} after {config.steps}.",
        f"The size of the gradient for θ ≠ 0, where that of W₁ is 1: {_ranges(sizes, '.3g')}.",
        f"θ, learned from {START:g} on by {config.updates} updates, was in the last {LAST}: {_ranges(last, '.3f')}.",
    ]


def _ranges(of: dict[str, list[float]], form: str) -> str:
    return "; ".join(f"{name} from {low:{form}} to {high:{form}}" for name, (low, high) in of.items())


def picture(found: list[dict], paths: dict[str, list[float]], config: Config):
    """The figure of six panels."""
    drawn, ((em, js, kl), (slopes, profile, learned)) = panels(2, 3)
    thetas = torch.tensor([row["theta"] for row in found])
    apart = thetas != 0
    em.plot(thetas, thetas.abs(), color=EXACT, label="|θ|")
    em.plot(thetas, [row["critic"] for row in found], "o", color=CRITIC, label="critic")
    em.set(title="W₁", xlabel="θ")
    for side in (-1, 1):
        js.plot([side, 0], [math.log(2)] * 2, color=EXACT, label="log 2; 0 at θ = 0" if side > 0 else None)
    js.plot(0, 0, "s", color=EXACT, markersize=9, fillstyle="none")
    js.plot(thetas, [row["JS"] for row in found], "o", color=JS, label="discriminator")
    js.set(title="JS", xlabel="θ", ylim=(-0.05, 0.8))
    for theta, shade in (0.2, 0.4), (0.6, 0.7), (1.0, 1.0):
        row = min(found, key=lambda row: abs(row["theta"] - theta))
        kl.plot(
            range(1, config.steps + 1), row["KL"], color=KL, alpha=shade, label=f"discriminator, θ = {row['theta']:.1f}"
        )
    kl.set(title="KL = ∞: its estimate in training", xlabel="update")
    for name, colour in LOSSES.items():
        sizes = torch.tensor([abs(row["gradients"][name]) for row in found])
        slopes.semilogy(thetas[apart], sizes[apart], "o", color=colour, label=name)
    slopes.axhline(1, color=EXACT, label="|dW₁ ÷ dθ|")
    slopes.set(title="size of the gradient for θ", xlabel="θ")
    _profile(profile, *found[-1]["networks"])
    for name, colour in reversed(LOSSES.items()):
        width = 0.6 if name == "GAN, −log D" else 2
        learned.plot(range(len(paths[name]) + 1), [START, *paths[name]], color=colour, linewidth=width, label=name)
    learned.set(title="θ, learned; the data are at 0", xlabel="update of θ")
    for axes in (em, js, kl, slopes, profile, learned):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return drawn


@torch.no_grad()
def _profile(axes, critic: nn.Module, discriminator: nn.Module) -> None:
    """Both networks between the lines at 0 and 1, halfway up."""
    x = torch.linspace(-0.25, 1.25, 301)
    points = torch.stack([x, torch.full_like(x, 0.5)], 1)
    scores = critic(points) - critic(torch.tensor([[0.0, 0.5]]))
    axes.plot(x, scores, color=CRITIC, label="critic, f(x) − f(0)")
    axes.plot(x, discriminator(points).sigmoid(), color=JS, label="discriminator, D(x)")
    for place, name in (0, "real"), (1, "generated"):
        axes.axvline(place, color=EXACT, linewidth=0.8, linestyle=":")
        axes.text(place, 1.32, name, ha="center", color=EXACT)
    axes.set(title="between the lines, θ = 1", xlabel="x", ylim=(-1.4, 1.5))


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
