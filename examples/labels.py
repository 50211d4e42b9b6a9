"""A conditional WGAN-GP: digits by their labels, which both steps are given behind the samples.

    python examples/labels.py --out labels.png

    critic_step(real, fake, labels)      f(x, y): the labels as a second channel, learnt
    generator_step(latent, labels)       G(z, y): the labels beside the latent

Needs the ``train`` extra.
"""

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import openmp  # noqa: F401 (before torch)
import torch
from script import main
from torch import nn
from torch.nn.functional import one_hot
from turns import Options, compared, figure, train

from wgan_kernels.training import report
from wgan_kernels.training.data import load
from wgan_kernels.training.data.images import to_unit
from wgan_kernels.training.models.digit_classifier import frozen_classifier

CLASSES, LATENT, SHOWN, JUDGED = 10, 64, 10, 200  # of each digit: samples in the figure, and those that are judged


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """A conditional WGAN-GP: digits by their labels, which both steps are given behind the samples."""

    out: Path = Path("labels.png")
    steps: int = 1000
    """Generator updates, every other one by plain PyTorch, each after two of the critic."""
    batch_size: int = 64
    width: int = 32
    """Channels of the critic's first convolution."""
    lr: float = 3e-4
    threads: int = 2
    """Of PyTorch."""


class Critic(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.plane = nn.Embedding(CLASSES, 28 * 28)
        channels, layers = (2, width, 2 * width, 4 * width), []
        for inside, outside in pairwise(channels):
            layers += [nn.Conv2d(inside, outside, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * 9, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([x, self.plane(y).view(-1, 1, 28, 28)], 1))


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(LATENT + CLASSES, 128 * 7 * 7),
            nn.Unflatten(1, (128, 7, 7)),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([z, one_hot(y, CLASSES).to(z.dtype)], 1))


def run(config: Config) -> float:
    """Trains and draws; returns the share of samples in which the classifier sees the digit that was asked for."""
    torch.manual_seed(config.seed)
    digits, critic, generator = load("mnist"), Critic(config.width), Generator()
    adam = {"lr": config.lr, "betas": (0.0, 0.9)}
    of_critic, of_generator = (torch.optim.Adam(net.parameters(), **adam) for net in (critic, generator))
    made = {}

    def steps(of):
        if of not in made:
            made[of] = of.CriticStep(critic, of_critic), of.GeneratorStep(generator, critic, of_generator)
        return made[of]

    def update(of) -> float:
        critic_step, generator_step = steps(of)
        for _ in range(2):
            drawn = torch.randint(len(digits), (config.batch_size,))
            real, labels = to_unit(digits.images[drawn]), digits.labels[drawn]
            fake = generator_step.sample(torch.randn(config.batch_size, LATENT), labels)
            found = critic_step(real, fake, labels)
        generator_step(torch.randn(config.batch_size, LATENT), labels)
        return found["wasserstein"].item()

    estimates, seconds = train(update, config.steps, "W")
    print(compared(seconds))
    labels = torch.arange(CLASSES).repeat_interleave(JUDGED)
    with torch.no_grad():
        samples = generator(torch.randn(len(labels), LATENT), labels)  # by the statistics of all digits, as in training
        seen = frozen_classifier("cpu")(samples).argmax(1)
    share = (seen == labels).float().mean().item()
    print(f"of {len(labels)} samples {share:.1%} are seen as the digit that was asked for")
    draw(config, samples.unflatten(0, (CLASSES, JUDGED))[:, :SHOWN].flatten(0, 1), estimates)
    return share


def draw(config: Config, samples: torch.Tensor, estimates: list[float]) -> None:
    """A row of samples for each digit, and the critic's estimate."""
    pyplot, drawn, (rows, curve) = figure(2)
    rows.imshow(report.grid(samples, SHOWN, 2), cmap="gray")
    rows.set(xticks=[], yticks=[], title="a row for each label")
    curve.plot(range(1, len(estimates) + 1), estimates, linewidth=0.8)
    curve.set(xlabel="generator update", title="mean f(real, y) − mean f(fake, y)")
    curve.grid(alpha=0.3)
    drawn.savefig(config.out, dpi=120)
    pyplot.close(drawn)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
