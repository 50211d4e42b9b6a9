"""The frozen judge of generated digits: a small convolutional classifier, trained on the 60,000 MNIST training digits.

Written by ``examples/train_digit_classifier.py``; the 10,000 digits embedded in the package were held out.
"""

from importlib import resources

import torch
from torch import nn

from .._optional import optional

FEATURES = 64
WEIGHTS = "assets/digit_classifier.safetensors"


class DigitClassifier(nn.Module):
    """[B, 1, 28, 28] in [−1, 1] → logits [B, 10]. 4 convolutions, 61,000 weights (0.25 MB)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *_block(1, 16, stride=1),
            *_block(16, 32, stride=2),
            *_block(32, 64, stride=2),
            *_block(64, FEATURES, stride=1),
        )
        self.head = nn.Linear(FEATURES, 10)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 1, 28, 28] → [B, 64]: the mean over space of the last convolution, the features of the FID."""
        return self.body(images).mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


def _block(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]


def frozen_classifier(device: torch.device | str = "cpu") -> DigitClassifier:
    """The shipped classifier on ``device``: evaluation mode, no gradients."""
    load = optional("safetensors.torch", "the digit classifier").load
    weights = (resources.files("wgan_kernels.training") / WEIGHTS).read_bytes()
    with torch.device("meta"):  # first weights would draw the training's random numbers
        classifier = DigitClassifier()
    classifier.load_state_dict(load(weights), assign=True)
    return classifier.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
