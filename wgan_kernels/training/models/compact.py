"""compact: our own networks for digits, shaped by what a CPU does fast.

They see each 2×2 block of pixels as four channels at 14×14. Convolutions from or to one channel at 28×28, and with the
former the penalty's gradient with respect to that channel, leave a CPU's vector units idle.
"""

import torch
from torch import nn

from ._generator import Projection, Widen

WIDTH = 32  # of the critics; the generator has twice as much
SLOPE = 0.2


class CompactCritic(nn.Module):
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


class CompactBatchNormCritic(nn.Module):
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


class CompactGenerator(nn.Sequential):
    """Noise [B, L] → images [B, 1, 28, 28] in [−1, 1]: 128 channels at 7×7, 64 at 14×14, then four pixels at a time.

    The last layer computes the four pixels of each 2×2 block as four channels at 14×14 and shuffles them into place.
    """

    def __init__(self, latent: int):
        super().__init__()
        self.latent = latent
        self.project = Projection(latent, 4 * WIDTH, 7, bias=False)
        self.body = nn.Sequential(
            nn.BatchNorm2d(4 * WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * WIDTH, 2 * WIDTH, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.Conv2d(2 * WIDTH, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.widen = Widen()
        self.tanh = nn.Tanh()
