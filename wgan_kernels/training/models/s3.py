"""S3, the TensorFlow post on WGAN and WGAN-GP: critics of three convolutions, normalised after the second and third.

Its generator is that of another post, which is not among our documents: S0's stands in, with the post's latent of 128.

Where the post errs, these follow the papers:

- It calls the WGAN critic without ``training=True``, so that BatchNorm never sees a batch (and clips its running
  statistics with the weights). Here it normalises each batch by its own statistics, as in the original's DCGAN.
- Its ``LayerNormalization()`` normalises each pixel over its channels alone. Here it is each image's whole result, with
  a scale and a shift for each channel, as in the code of Gulrajani et al.: GroupNorm with one group.
"""

from collections.abc import Callable

from torch import nn

from ._initial import glorot_
from ._tensorflow import NORM_EPS, same_convolution

SLOPE = 0.01


def batch_norm_critic() -> nn.Sequential:
    """Images [B, 1, 28, 28] → scores [B], for clipped weights."""
    return _critic(lambda channels: nn.BatchNorm2d(channels, NORM_EPS, track_running_stats=False))


def layer_norm_critic() -> nn.Sequential:
    """Images [B, 1, 28, 28] → scores [B], for the gradient penalty."""
    return _critic(lambda channels: nn.GroupNorm(1, channels, NORM_EPS))


def _critic(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    network = nn.Sequential(
        *same_convolution(28, 1, 32, kernel=3),
        nn.LeakyReLU(SLOPE),
        *same_convolution(14, 32, 64, kernel=3),
        norm(64),
        nn.LeakyReLU(SLOPE),
        *same_convolution(7, 64, 128, kernel=3),
        norm(128),
        nn.LeakyReLU(SLOPE),
        nn.Flatten(),
        nn.Linear(128 * 4 * 4, 1),
        nn.Flatten(0),
    )
    glorot_(network)
    return network
