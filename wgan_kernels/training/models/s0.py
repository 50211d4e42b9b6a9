"""S0, the Keras notebook for MNIST: two convolutions each way, BatchNorm in both networks.

The critic's BatchNorm normalises each batch by itself and never runs in evaluation mode, so it keeps no running
statistics.
"""

from torch import nn

from ._generator import ImageGenerator, Projection
from ._initial import glorot_, normal_
from ._tensorflow import NORM_EPS

SLOPE = 0.2


def generator(latent: int) -> ImageGenerator:
    """Noise [B, latent] → images [B, 1, 28, 28] in [−1, 1]. Kernels N(0, 0.02²). The document's latent is 50.

    128 channels at 7×7 by a linear layer, two transposed convolutions to 28×28, a 7×7 convolution to one channel. That
    LeakyReLU comes before the reshape in the document makes no difference.
    """
    layers = [Projection(latent, 128, 7), nn.LeakyReLU(SLOPE)]
    for _ in range(2):
        layers += [
            nn.ConvTranspose2d(128, 128, 4, stride=2, padding=1),
            nn.BatchNorm2d(128, NORM_EPS, momentum=0.01),  # 1 − Keras' 0.99
            nn.LeakyReLU(SLOPE),
        ]
    network = ImageGenerator(latent, *layers, nn.Conv2d(128, 1, 7, padding=3))
    normal_(network)
    return network


def critic() -> nn.Sequential:
    """Images [B, 1, 28, 28] → scores [B]. Kernels N(0, 0.02²), the last layer's Keras' default."""
    layers = []
    for channels in (1, 64):
        layers += [
            nn.Conv2d(channels, 64, 4, stride=2, padding=1),
            nn.BatchNorm2d(64, NORM_EPS, track_running_stats=False),
            nn.LeakyReLU(SLOPE),
        ]
    convolutions, score = nn.Sequential(*layers), nn.Linear(64 * 7 * 7, 1)
    normal_(convolutions)
    glorot_(score)
    return nn.Sequential(*convolutions, nn.Flatten(), score, nn.Flatten(0))
