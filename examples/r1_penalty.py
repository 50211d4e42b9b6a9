"""A GAN with the penalty R1 on eight Gaussians: the samples, and the critic that holds them there.

    python examples/r1_penalty.py --out r1.png

    critic     L = mean softplus(f(G(z))) + mean softplus(−f(x)) + γ·½·mean ‖∇f(x)‖²
    generator  L = mean softplus(−f(G(z)))                     (Mescheder et al. 2018, equations 1 and 9)

Without the penalty the generator circles around the data for ever; try ``--gamma 0``. Needs the ``train`` extra.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from script import main
from torch import nn
from torch.nn.functional import softplus
from turns import Options, compared, figure, perceptron, train

from wgan_kernels.training.errors import UsageError

MODES, RADIUS, SPREAD, LATENT, HELD_OUT = 8, 2.0, 0.1, 8, 2000


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A GAN with the penalty R1 on eight Gaussians: the samples, and the critic that holds them there."""

    out: Path = Path("r1_penalty.png")
    steps: int = 1500
    batch_size: int = 256
    width: int = 256
    lr: float = 1e-3
    gamma: float = 0.3
    """γ, the penalty's weight."""

    def check(self) -> None:
        super().check()
        if not self.gamma >= 0:
            raise UsageError(f"--gamma {self.gamma}: expected a number of at least 0")


def centres() -> torch.Tensor:
    """[8, 2], around a circle."""
    angles = torch.arange(MODES) * (2 * torch.pi / MODES)
    return RADIUS * torch.stack([angles.cos(), angles.sin()], 1)


def real_samples(count: int) -> torch.Tensor:
    """[count, 2]."""
    return centres()[torch.randint(MODES, (count,))] + SPREAD * torch.randn(count, 2)


def verdict(samples: torch.Tensor) -> tuple[float, int]:
    """(share within four standard deviations of a centre, centres that have half of their share of those)."""
    distances, nearest = torch.cdist(samples, centres()).min(1)
    near = distances < 4 * SPREAD
    counts = torch.bincount(nearest[near], minlength=MODES)
    return near.float().mean().item(), int((counts >= len(samples) / MODES / 2).sum())


def run(config: Config) -> tuple[float, int]:
    """Trains and draws; returns the verdict."""
    torch.manual_seed(config.seed)
    critic = perceptron(2, config.width, config.width, config.width, 1, activation=partial(nn.LeakyReLU, 0.2))
    generator = perceptron(LATENT, 128, 128, 128, 2, activation=nn.ReLU)
    of_critic, of_generator = (
        torch.optim.Adam(net.parameters(), lr=config.lr, betas=(0.0, 0.99)) for net in (critic, generator)
    )
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, config.steps) for o in (of_critic, of_generator)]

    @torch.no_grad()
    def sample(count: int) -> torch.Tensor:
        return generator(torch.randn(count, LATENT))

    def update(of) -> float:
        real, fake = real_samples(config.batch_size), sample(config.batch_size)
        penalty = of.r1_penalty(critic, real)
        loss = softplus(critic(fake)).mean() + softplus(-critic(real)).mean() + config.gamma * penalty
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
        loss = softplus(-critic(generator(torch.randn(config.batch_size, LATENT)))).mean()
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()
        [schedule.step() for schedule in schedules]
        return penalty.item()

    penalties, seconds = train(update, config.steps, "R1")
    samples = sample(HELD_OUT)
    near, modes = verdict(samples)
    print(compared(seconds))
    of_real, _ = verdict(real_samples(HELD_OUT))
    print(
        f"{near:.1%} of {HELD_OUT} samples lie near a centre (real ones {of_real:.1%}), at {modes} of {MODES} centres"
    )
    draw(config, critic, samples, penalties)
    return near, modes


def draw(config: Config, critic: nn.Module, samples: torch.Tensor, penalties: list[float]) -> None:
    """Real and generated samples, the critic's landscape, and the penalty."""
    pyplot, drawn, (points, landscape, curve) = figure(3)
    line = torch.linspace(-3, 3, 121)
    real = real_samples(len(samples))
    points.scatter(*real.T, s=3, color="0.6", label="real")
    points.scatter(*samples.T, s=3, color="C0", label="generated")
    points.legend(loc="upper right", markerscale=4)
    points.set(xlim=(-3, 3), ylim=(-3, 3), title="samples")
    with torch.no_grad():
        scores = critic(torch.cartesian_prod(line, line)).view(121, 121).T
    contours = landscape.contourf(line, line, scores, levels=20, cmap="RdBu_r")
    landscape.plot(*centres().T, "k+")
    landscape.set(title="the critic's score; centres +")
    drawn.colorbar(contours, ax=landscape)
    for axes in (points, landscape):
        axes.set_aspect("equal")
    curve.semilogy(range(1, len(penalties) + 1), penalties, linewidth=0.8)
    curve.set(xlabel="update", title="½·mean ‖∇f(x)‖² at real samples")
    curve.grid(alpha=0.3)
    drawn.savefig(config.out, dpi=100)
    pyplot.close(drawn)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
