"""wgan-gp-mnist: the networks of WGAN-GP's authors for digits: three 5×5 convolutions of stride 2, no normalisation.

The published latent is 128. Their pixels are in [0, 1], made by a sigmoid; ours are in [−1, 1], by a tanh, so that
distances between images, and with them the critic's scores, are twice theirs.

Source: the code of Gulrajani et al. 2017 (the paper itself shows MNIST in figure 5 only).
"""

from math import prod

from torch import nn

from ._generator import ImageGenerator, Projection
from ._initial import glorot_
from ._tensorflow import same_convolution

WIDTH = 64
SLOPE = 0.2


def generator(latent: int) -> ImageGenerator:
    """Noise [B, latent] → images [B, 1, 28, 28] in [−1, 1]: 4×4 to 8×8, of which 7×7 are kept, to 14×14, to 28×28."""
    network = ImageGenerator(
        latent,
        Projection(latent, 4 * WIDTH, 4),
        nn.ReLU(),
        *_doubling(4 * WIDTH, 2 * WIDTH, cut=1),
        nn.ReLU(),
        *_doubling(2 * WIDTH, WIDTH),
        nn.ReLU(),
        *_doubling(WIDTH, 1),
    )
    _initialise(network)
    return network


def critic() -> nn.Sequential:
    """Images [B, 1, 28, 28] → scores [B]."""
    network = nn.Sequential(
        *same_convolution(28, 1, WIDTH, kernel=5),
        nn.LeakyReLU(SLOPE),
        *same_convolution(14, WIDTH, 2 * WIDTH, kernel=5),
        nn.LeakyReLU(SLOPE),
        *same_convolution(7, 2 * WIDTH, 4 * WIDTH, kernel=5),
        nn.LeakyReLU(SLOPE),
        nn.Flatten(),
        nn.Linear(4 * WIDTH * 4 * 4, 1),
        nn.Flatten(0),
    )
    _initialise(network)
    return network


def _doubling(channels: int, narrower: int, cut: int = 0) -> list[nn.Module]:
    """The transpose of TensorFlow's "same" convolution from 2n to n pixels, less ``cut`` rows and columns at its end.

    That convolution has one zero before the image and two behind it. PyTorch's padding takes off one on each side: the
    other row and column behind go with those to be cut.
    """
    behind = -1 - cut
    return [
        nn.ConvTranspose2d(channels, narrower, 5, stride=2, padding=1),
        nn.ZeroPad2d((0, behind, 0, behind)),
    ]


def _initialise(network: nn.Module) -> None:
    """U(−a, a), biases zero: a² = 6 / (fan_in + fan_out) for linear layers, 12 / (…) for convolutions, where of the
    pixels on the finer side only one in stride² meets a given weight.
    """
    glorot_(network)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            coarse = layer.in_channels if isinstance(layer, nn.ConvTranspose2d) else layer.out_channels
            fine = layer.in_channels + layer.out_channels - coarse
            fans = prod(layer.kernel_size) * (fine + coarse / prod(layer.stride))
            bound = (12 / fans) ** 0.5
            nn.init.uniform_(layer.weight, -bound, bound)
