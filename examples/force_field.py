"""A potential from forces alone: an energy network whose forces are trained, and which then finds minima.

    python examples/force_field.py --out forces.png

    L = mean ‖F(x) − F*(x)‖²,    F = −∇E

F is a first derivative of the network, so that Adam needs a second one. The forces F* are those of the potential of
Müller and Brown (1979), a test of methods for reaction paths: three minima, two saddles. Energies are never shown to
the network, which knows them up to a constant. Needs the ``train`` extra.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from script import main
from torch import nn
from turns import Options, compared, figure, perceptron, train

import wgan_kernels as wk

LOW, HIGH = torch.tensor([-1.6, -0.4]), torch.tensor([1.2, 2.1])
HIGHEST = 100.0  # energy; samples are drawn below it, as a molecule at a finite temperature would be
HELD_OUT = 4096
UNIT = 100.0  # of energy, in which the network works
# Müller and Brown 1979, table I: E(x, y) = Σ A exp(a (x − x₀)² + b (x − x₀)(y − y₀) + c (y − y₀)²)
HEIGHT = torch.tensor([-200.0, -100.0, -170.0, 15.0])
A, B, C = torch.tensor([[-1.0, -1.0, -6.5, 0.7], [0.0, 0.0, 11.0, 0.6], [-10.0, -10.0, -6.5, 0.7]])
X0, Y0 = torch.tensor([[1.0, 0.0, -0.5, -1.0], [0.0, 0.5, 1.5, 1.0]])
MINIMA = torch.tensor([[-0.558, 1.442], [0.623, 0.028], [-0.050, 0.467]])  # known, to three places


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A potential from forces alone: an energy network whose forces are trained, and which then finds minima."""

    out: Path = Path("force_field.png")
    steps: int = 1500
    batch_size: int = 256
    width: int = 128
    lr: float = 3e-3


def potential(x: torch.Tensor) -> torch.Tensor:
    """[B, 2] → [B, 1]."""
    dx, dy = x[:, :1] - X0, x[:, 1:] - Y0
    return (HEIGHT * (A * dx.square() + B * dx * dy + C * dy.square()).exp()).sum(1, keepdim=True)


def forces(of, energy, x: torch.Tensor) -> torch.Tensor:
    """−∇E(x): [B, 2], a function of the parameters, too; ``of``: wgan_kernels or its reference."""
    x = x.detach().requires_grad_()
    with of.second_order():
        total = energy(x).sum()
    return -torch.autograd.grad(total, x, create_graph=True)[0]


def samples(count: int) -> torch.Tensor:
    """Points [count, 2] of the plane, evenly drawn where the energy is below HIGHEST."""
    x = LOW + (HIGH - LOW) * torch.rand(4 * count, 2)
    return x[potential(x).squeeze(1) < HIGHEST][:count]


def descend(energy, x: torch.Tensor) -> torch.Tensor:
    """Where steps along the forces end: [B, 2]."""
    for _ in range(2000):
        x = x + 2e-4 * forces(wk, energy, x).detach().clamp(-500, 500)
    return x


def run(config: Config) -> tuple[float, float]:
    """Trains and draws; returns the forces' relative error, and how far the minima found are from the known ones."""
    torch.manual_seed(config.seed)
    body = perceptron(2, config.width, config.width, config.width, 1, activation=nn.SiLU)
    optimizer = torch.optim.Adam(body.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    held_out = samples(HELD_OUT)
    true = forces(wk.reference, potential, held_out)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return UNIT * body(x)

    def error() -> float:
        return ((forces(wk, energy, held_out) - true).square().sum() / true.square().sum()).sqrt().item()

    def update(of) -> float:
        x = samples(config.batch_size)
        loss = ((forces(of, energy, x) - forces(wk.reference, potential, x)) / UNIT).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    before = error()
    losses, seconds = train(update, config.steps, "loss")
    after = error()
    found = descend(energy, MINIMA + torch.tensor([0.1, -0.05]))
    off = (found - MINIMA).norm(dim=1)
    print(compared(seconds))
    print(f"‖F − F*‖ over ‖F*‖, of {len(held_out)} fresh samples: {before:.3f} before, {after:.4f} after")
    for place, known, distance in zip(found.tolist(), MINIMA.tolist(), off.tolist(), strict=True):
        print(
            f"minimum at ({place[0]:.3f}, {place[1]:.3f}); known ({known[0]:.3f}, {known[1]:.3f}), {distance:.3f} off"
        )
    draw(config, energy, found, losses)
    return after, off.max().item()


def draw(config: Config, energy, found: torch.Tensor, losses: list[float]) -> None:
    """Both surfaces with their minima, and the loss."""
    pyplot, drawn, (true, learned, curve) = figure(3)
    lines = [torch.linspace(low, high, 161) for low, high in zip(LOW.tolist(), HIGH.tolist(), strict=True)]
    grid = torch.cartesian_prod(*lines)
    with torch.no_grad():
        surface, guess = potential(grid), energy(grid)
    guess = guess - (guess - surface)[surface < HIGHEST].mean()  # the constant that forces leave open
    levels = torch.linspace(-150, HIGHEST, 26)
    for axes, height, minima, name in (
        (true, surface, MINIMA, "Müller and Brown's potential"),
        (learned, guess, found, "learned from forces"),
    ):
        height = height.masked_fill(surface > HIGHEST, torch.nan).view(161, 161).T
        contours = axes.contourf(*lines, height, levels=levels, cmap="viridis", extend="both")
        axes.plot(*minima.T, "w*", markersize=13, markeredgecolor="k")
        axes.set(title=f"{name}; minima ★", xlabel="x", ylabel="y")
    drawn.colorbar(contours, ax=learned, label="energy")
    curve.semilogy(range(1, len(losses) + 1), losses, linewidth=0.8)
    curve.set(xlabel="update", ylabel=f"mean ‖F − F*‖², in units of {UNIT:g}", title="loss")
    curve.grid(alpha=0.3)
    drawn.savefig(config.out, dpi=100)
    pyplot.close(drawn)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
