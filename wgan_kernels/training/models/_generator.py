"""What the generators have in common: how they begin, and how they end."""

import torch
from torch import nn


class Generator(nn.Sequential):
    """Noise [B, latent] → samples [B, …], unbounded, by layers in turn."""

    def __init__(self, latent: int, *layers: nn.Module):
        super().__init__()
        self.latent = latent
        self.layers = nn.Sequential(*layers)
        self.widen = Widen()


class ImageGenerator(Generator):
    """Noise [B, latent] → images [B, C, H, W] in [−1, 1]: tanh of the layers."""

    def __init__(self, latent: int, *layers: nn.Module):
        super().__init__(latent, *layers)
        self.tanh = nn.Tanh()


class Widen(nn.Module):
    """Samples in float32 or wider, from autocast's, too narrow for pixels."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.to(torch.promote_types(samples.dtype, torch.float32))


class Projection(nn.Linear):
    """Noise [B, latent] → [B, C, side, side]: a linear layer whose result is read pixel by pixel, as channels-last
    memory has it, without a copy. The same as a transposed convolution of one pixel.
    """

    def __init__(self, latent: int, channels: int, side: int, bias: bool = True):
        super().__init__(latent, side * side * channels, bias)
        self.shape = (side, side, channels)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return super().forward(noise).unflatten(1, self.shape).permute(0, 3, 1, 2)
