"""mlp: the original WGAN's perceptrons, four layers, 512 wide, ReLU, for images of any shape.

Initial weights are PyTorch's own, as in the original.

Source: Arjovsky et al. 2017, section 4.3, figure 7, and their code, in which the generator ends without tanh. Here it
has one: pixels are in [−1, 1], and everything that shows or measures them relies on it.
"""

from itertools import pairwise
from math import prod

from torch import nn

from ._generator import ImageGenerator

WIDTHS = (512, 512, 512)


def generator(latent: int, shape: tuple[int, ...]) -> ImageGenerator:
    """Noise [B, latent] → images [B, *shape] in [−1, 1]."""
    return ImageGenerator(latent, *perceptron(latent, *WIDTHS, prod(shape)), nn.Unflatten(1, shape))


def critic(shape: tuple[int, ...]) -> nn.Sequential:
    """Images [B, *shape] → scores [B]."""
    return nn.Sequential(nn.Flatten(), *perceptron(prod(shape), *WIDTHS, 1), nn.Flatten(0))


def perceptron(*widths: int) -> list[nn.Module]:
    """Linear layers from one width to the next, ReLU between them."""
    layers = [layer for wide, wider in pairwise(widths) for layer in (nn.Linear(wide, wider), nn.ReLU())]
    return layers[:-1]
