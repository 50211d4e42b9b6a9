"""toy-mlp: the perceptrons for distributions in the plane, three hidden layers of 512, ReLU.

The published latent is 2. Hidden layers begin as He et al. have it, the last as Glorot and Bengio, biases at zero.

Source: Gulrajani et al. 2017, section 3.1, figure 1, and their code.
"""

from torch import nn

from ._generator import Generator
from ._initial import glorot_, he_
from .mlp import WIDTHS, perceptron


def generator(latent: int, shape: tuple[int, ...]) -> Generator:
    """Noise [B, latent] → points [B, N], unbounded."""
    return Generator(latent, *_perceptron(latent, shape[0]))


def critic(shape: tuple[int, ...]) -> nn.Sequential:
    """Points [B, N] → scores [B]."""
    return nn.Sequential(*_perceptron(shape[0], 1), nn.Flatten(0))


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    layers = nn.Sequential(*perceptron(inputs, *WIDTHS, outputs))
    he_(layers)
    glorot_(layers[-1])
    return layers
