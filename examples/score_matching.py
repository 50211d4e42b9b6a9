"""The score of a density from its samples alone: an energy network, by sliced score matching.

    python examples/score_matching.py --out score.png

    L = mean [ vᵀ ∇(vᵀ s(x)) + ½ (vᵀ s(x))² ],    s = −∇E,    v ~ N(0, 1)        (Song et al. 2019, equation 7)

s is a first derivative of the network, its Hessian's product with v a second one, and Adam needs a third. The samples
are of a mixture of Gaussians, whose true score ∇log p is known; training never sees it. Needs the ``train`` extra.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from script import main
from torch import nn
from turns import Options, compared, figure, perceptron, train

import wgan_kernels as wk

ARMS, HELD_OUT, REACH = 5, 4096, 4.0


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """The score of a density from its samples alone: an energy network, by sliced score matching."""

    out: Path = Path("score_matching.png")
    steps: int = 1000
    batch_size: int = 512
    width: int = 128
    lr: float = 2e-3


def mixture() -> torch.distributions.Distribution:
    """Five Gaussians, long and thin, around a circle: a density of points [B, 2]."""
    angles = torch.arange(ARMS) * (2 * torch.pi / ARMS)
    along = torch.stack([angles.cos(), angles.sin()], 1)
    across = along.flip(1) * torch.tensor([-1.0, 1.0])
    spread = 0.6**2 * along[:, :, None] * along[:, None] + 0.25**2 * across[:, :, None] * across[:, None]
    arms = torch.distributions.MultivariateNormal(2 * along, spread)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(ARMS)), arms)


def true_score(density: torch.distributions.Distribution, x: torch.Tensor) -> torch.Tensor:
    """∇log p(x): [B, 2]."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(density.log_prob(x).sum(), x)[0]


def score(of, energy: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """s(x) = −∇E(x): [B, 2], a function of x and of the parameters; ``of``: wgan_kernels or its reference."""
    with of.second_order():
        total = energy(x).sum()
    return -torch.autograd.grad(total, x, create_graph=True)[0]


def sliced_loss(of, energy: nn.Module, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    projected = (score(of, energy, x) * v).sum(1)
    (bend,) = torch.autograd.grad(projected.sum(), x, create_graph=True)
    return ((bend * v).sum(1) + projected.square() / 2).mean()


def error(energy: nn.Module, density: torch.distributions.Distribution, x: torch.Tensor) -> float:
    """The Fisher divergence from the true score, relative to that of no score at all: mean ‖s − s*‖² / mean ‖s*‖²."""
    true, learned = true_score(density, x), score(wk, energy, x.detach().requires_grad_())
    return ((learned - true).square().sum() / true.square().sum()).item()


def run(config: Config) -> float:
    """Trains, draws, and returns the error that is left."""
    torch.manual_seed(config.seed)
    density = mixture()
    energy = perceptron(2, config.width, config.width, config.width, 1, activation=nn.SiLU)
    optimizer = torch.optim.Adam(energy.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    held_out = density.sample((HELD_OUT,))
    before = error(energy, density, held_out)

    def update(of) -> float:
        x = density.sample((config.batch_size,))
        loss = sliced_loss(of, energy, x, torch.randn_like(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    losses, seconds = train(update, config.steps, "loss")
    after = error(energy, density, held_out)
    print(compared(seconds))
    print(
        f"mean ‖s − ∇log p‖² over mean ‖∇log p‖², of {HELD_OUT} fresh samples: {before:.3f} before, {after:.3f} after"
    )
    draw(config, energy, density, losses)
    return after


def draw(config: Config, energy: nn.Module, density: torch.distributions.Distribution, losses: list[float]) -> None:
    """The true and the learned landscape with their scores, and the loss."""
    pyplot, drawn, (true, learned, curve) = figure(3)
    line = torch.linspace(-REACH, REACH, 121)
    grid = torch.cartesian_prod(line, line)
    sparse = grid.view(121, 121, 2)[3::6, 3::6].reshape(-1, 2)
    with torch.no_grad():
        landscapes = density.log_prob(grid), -energy(grid).squeeze(1)
    arrows = true_score(density, sparse), score(wk, energy, sparse.clone().requires_grad_()).detach()
    likely = density.log_prob(sparse) > -7.0  # where there are samples to learn from
    for axes, height, arrow, name in zip((true, learned), landscapes, arrows, ("log p", "−E, learned"), strict=True):
        height = (height - height.max()).view(121, 121).T
        axes.contourf(line, line, height.clamp(min=-10), levels=20, cmap="Blues")
        ends, tips = sparse[likely], arrow[likely]
        axes.quiver(*ends.T, *tips.T, angles="xy", scale=110, width=0.003, color="C3")
        axes.set_title(f"{name}, and its gradient")
        axes.set_aspect("equal")
    width = max(1, len(losses) // 50)
    means = torch.tensor(losses).unfold(0, width, width).mean(1)
    curve.plot(torch.arange(1, len(means) + 1) * width, means)
    curve.set(xlabel="update", ylabel="sliced score matching loss", title=f"loss, means of {width} updates")
    curve.grid(alpha=0.3)
    drawn.savefig(config.out, dpi=100)
    pyplot.close(drawn)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
