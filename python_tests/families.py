"""The families of training networks, as their tests take them: for which samples, and of which layers."""

import torch
from torch import nn

DIGIT, CIFAR, FACE, POINT = (1, 28, 28), (3, 32, 32), (3, 64, 64), (2,)
DIGITS_ONLY = ("compact", "s0", "s3", "wgan-gp-mnist")
BATCH_NORM = ("compact-batch-norm", "s0", "dcgan", "s3-batch-norm")


def shapes_of(name):
    """Samples that the family of this name is for."""
    if name.startswith(DIGITS_ONLY):
        return [DIGIT]
    if name == "toy-mlp":
        return [POINT, (1,), (7,)]
    if name == "mlp":
        return [DIGIT, CIFAR, (2, 5, 9)]
    return [DIGIT, CIFAR, FACE, (1, 128, 128)]


def layers(network):
    return [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]


def norms(network):
    return [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))]


def shaken(network):
    """In float64, with norms and biases that are no longer 1 and 0."""
    for param in network.parameters():
        if param.dim() == 1:
            param.data += 0.1 * torch.randn_like(param)
    return network.double()
