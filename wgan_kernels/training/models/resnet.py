"""resnet: WGAN-GP's residual networks for CIFAR-10, 32×32 pixels: 128 channels throughout, without labels.

The published latent is 128. BatchNorm in the generator, no normalisation in the critic, as in the authors' code. Other
sides than 32 are ours: as many blocks more or less as the side is doubled on the way from 4 (28: from 7).

1×1 convolutions of the shortcuts run on the smaller image, before upsampling and after averaging, which gives the same
result as the other order. 3×3 convolutions begin as U(−a, a), a² = 12 / (fan_in + fan_out), all other layers with half
that a², biases at zero.

Source: Gulrajani et al. 2017, appendix F, and their code.
"""

import torch
from torch import nn

from ._generator import ImageGenerator, Projection
from ._initial import glorot_
from ._shapes import PYRAMIDS

WIDTH = 128
SMALLEST = 8  # side of the images at the critic's end


class Residual(nn.Module):
    """x [B, C, S, S] → shortcut(x) + branch(x)."""

    def __init__(self, shortcut: nn.Module, branch: nn.Module):
        super().__init__()
        self.shortcut, self.branch = shortcut, branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.branch(x)


def generator(latent: int, shape: tuple[int, ...]) -> ImageGenerator:
    """Noise [B, latent] → images [B, C, S, S] in [−1, 1]."""
    channels, side, _ = shape
    start, doublings = PYRAMIDS[side]
    project, pixels = Projection(latent, WIDTH, start), nn.Conv2d(WIDTH, channels, 3, padding=1)
    glorot_(project)
    glorot_(pixels)
    blocks = [_doubling() for _ in range(doublings)]
    return ImageGenerator(latent, project, *blocks, nn.BatchNorm2d(WIDTH), nn.ReLU(), pixels)


def critic(shape: tuple[int, ...]) -> nn.Sequential:
    """Images [B, C, S, S] → scores [B]: halved down to 8×8 (28: 7×7), two blocks there, the mean over all pixels."""
    channels, side, _ = shape
    blocks, side = [_first_halving(channels)], side // 2
    while side > SMALLEST:
        blocks, side = [*blocks, _halving()], side // 2
    score = nn.Linear(WIDTH, 1)
    glorot_(score)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*blocks, _level(), _level(), nn.ReLU(), pool, nn.Flatten(), score, nn.Flatten(0))


def _doubling() -> Residual:
    branch = [nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.Upsample(scale_factor=2), _convolution()]
    branch += [nn.BatchNorm2d(WIDTH), nn.ReLU(), _convolution()]
    return Residual(nn.Sequential(_pointwise(), nn.Upsample(scale_factor=2)), nn.Sequential(*branch))


def _first_halving(channels: int) -> Residual:
    """Without a ReLU before the pixels."""
    branch = nn.Sequential(_convolution(channels), nn.ReLU(), _convolution(), nn.AvgPool2d(2))
    return Residual(nn.Sequential(nn.AvgPool2d(2), _pointwise(channels)), branch)


def _halving() -> Residual:
    branch = nn.Sequential(nn.ReLU(), _convolution(), nn.ReLU(), _convolution(), nn.AvgPool2d(2))
    return Residual(nn.Sequential(nn.AvgPool2d(2), _pointwise()), branch)


def _level() -> Residual:
    return Residual(nn.Identity(), nn.Sequential(nn.ReLU(), _convolution(), nn.ReLU(), _convolution()))


def _convolution(channels: int = WIDTH) -> nn.Conv2d:
    layer = nn.Conv2d(channels, WIDTH, 3, padding=1)
    glorot_(layer, gain=2**0.5)
    return layer


def _pointwise(channels: int = WIDTH) -> nn.Conv2d:
    layer = nn.Conv2d(channels, WIDTH, 1)
    glorot_(layer)
    return layer
