"""dcgan: the original WGAN's convolutional networks, for square images of 32, 64 or 128 pixels and any channels.

Widths 64, 128, 256, … double with each halving of the side down to 4, without biases; kernels N(0, 0.02²), BatchNorm's
scales N(1, 0.02²). Images of 28 pixels are halved twice, to 7, and so have widths 64 and 128 alone. The last layer of a
critic and the first of a generator are convolutions over all of a 4×4 image in the original: linear layers.

Source: Arjovsky et al. 2017, section 4 and their code; Radford et al. 2015. In that code the critic keeps its BatchNorm
when the generator goes without.
"""

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from ._generator import ImageGenerator, Projection
from ._initial import STD, normal_
from ._shapes import PYRAMIDS

WIDTH = 64


def generator(latent: int, shape: tuple[int, ...]) -> ImageGenerator:
    """Noise [B, latent] → images [B, C, S, S] in [−1, 1]."""
    halvings = PYRAMIDS[shape[1]][1]
    widths = [WIDTH * 2**k for k in reversed(range(halvings))]
    return _generator(latent, shape, widths, lambda channels: [nn.BatchNorm2d(channels)])


def plain_generator(latent: int, shape: tuple[int, ...]) -> ImageGenerator:
    """The same with 64 channels throughout and no BatchNorm (Arjovsky et al. 2017, section 4.3, figure 6). Their code
    leaves the widths as they are; the paper's "order of magnitude" of fewer weights is what 64 throughout gives.
    """
    return _generator(latent, shape, [WIDTH] * PYRAMIDS[shape[1]][1], _no_norm)


def critic(shape: tuple[int, ...]) -> nn.Sequential:
    """Images [B, C, S, S] → scores [B]: BatchNorm after all convolutions but the first. For clipped weights."""
    return _critic(shape, lambda channels: [nn.BatchNorm2d(channels, track_running_stats=False)])


def plain_critic(shape: tuple[int, ...]) -> nn.Sequential:
    """The same without BatchNorm."""
    return _critic(shape, _no_norm)


def layer_norm_critic(shape: tuple[int, ...]) -> nn.Sequential:
    """The same for the gradient penalty: each image's features normalised together, a scale and a shift for each
    channel (Gulrajani et al. 2017, section 4, and their code): GroupNorm with one group.
    """
    return _critic(shape, lambda channels: [nn.GroupNorm(1, channels)])


def _no_norm(channels: int) -> list[nn.Module]:
    return []


Norm = Callable[[int], list[nn.Module]]


def _generator(latent: int, shape: tuple[int, ...], widths: list[int], norm: Norm) -> ImageGenerator:
    channels, side, _ = shape
    layers = [Projection(latent, widths[0], PYRAMIDS[side][0], bias=False)]
    for wide, narrow in pairwise([*widths, channels]):
        layers += [*norm(wide), nn.ReLU(), nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)]
    network = ImageGenerator(latent, *layers)
    _initialise(network)
    return network


def _critic(shape: tuple[int, ...], norm: Norm) -> nn.Sequential:
    channels, side, _ = shape
    start, halvings = PYRAMIDS[side]
    widths = [channels, *(WIDTH * 2**k for k in range(halvings))]
    layers = []
    for narrow, wide in pairwise(widths):
        layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False))
        layers += [*(norm(wide) if len(layers) > 1 else []), nn.LeakyReLU(0.2)]
    score = nn.Linear(widths[-1] * start * start, 1, bias=False)
    network = nn.Sequential(*layers, nn.Flatten(), score, nn.Flatten(0))
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    normal_(network)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, STD)
