"""The critics of the MNIST runs: one for the gradient penalty, one for clipped weights.

Both see each 2×2 block of pixels as four channels at 14×14: a convolution with one input channel at 28×28, and with it
the penalty's gradient with respect to that channel, is the slowest of all on a CPU.
"""

import torch
from torch import nn

WIDTH = 32
SLOPE = 0.2


class Critic(nn.Module):
    """Images [B, 1, 28, 28] → scores [B]. For the gradient penalty: no BatchNorm, which would tie the samples of a
    batch to each other, while the penalty is about each sample's own gradient (Gulrajani et al. 2017, section 4).
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            nn.Linear(4 * WIDTH * 4 * 4, 1, bias=False),  # the losses do not see a constant
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).squeeze(1)


class NormalisedCritic(nn.Module):
    """Images [B, 1, 28, 28] → scores [B]. For clipped weights: within ±0.01 every layer shrinks its input many times
    over, and BatchNorm after all but the first restores the scale, as in the original's DCGAN critic. It never runs in
    evaluation mode, so it keeps no running statistics.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4, WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * WIDTH, track_running_stats=False),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * WIDTH, 4 * WIDTH, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4 * WIDTH, track_running_stats=False),
            nn.LeakyReLU(SLOPE),
            nn.Flatten(),
            nn.Linear(4 * WIDTH * 4 * 4, 1, bias=False),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).squeeze(1)
