"""The generator of the MNIST runs, shaped by what a CPU does fast."""

import torch
from torch import nn

WIDTH = 64


class Generator(nn.Module):
    """Noise [B, L] → images [B, 1, 28, 28] in [−1, 1]: 128 channels at 7×7, 64 at 14×14, then four pixels at a time.

    A transposed convolution to one channel at 28×28 leaves a CPU's vector units idle. The last layer computes the four
    pixels of each 2×2 block as four channels at 14×14 and shuffles them into place.
    """

    def __init__(self, latent: int):
        super().__init__()
        self.project = nn.Linear(latent, 2 * WIDTH * 7 * 7, bias=False)
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        # Channels last from the start: the projection's output is read as [B, 7, 7, C], no copy.
        start = self.project(latent).unflatten(1, (7, 7, 2 * WIDTH)).permute(0, 3, 1, 2)
        return torch.tanh(self.body(start).float())
