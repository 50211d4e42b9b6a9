"""A whole gradient penalty: its value, and its gradients in the critic's parameters through a double backward."""

from itertools import pairwise

import torch
from torch import nn

import wgan_kernels as wk

from ..case import OURS, Case, backward


def convolutions(*widths, kernel, slope):
    """Widths from the image's channels on, each halving the side: the body of a piecewise linear critic."""
    return [
        layer
        for channels, wider in pairwise(widths)
        for layer in (nn.Conv2d(channels, wider, kernel, 2, 1), nn.LeakyReLU(slope))
    ]


def s0_critic():
    """Of the Keras notebook: two convolutions of 64 channels."""
    return nn.Sequential(*convolutions(1, 64, 64, kernel=4, slope=0.2), nn.Flatten(), nn.Linear(64 * 7 * 7, 1))


def s3_critic():
    """Of the TensorFlow post: three convolutions of 32, 64 and 128 channels."""
    return nn.Sequential(*convolutions(1, 32, 64, 128, kernel=3, slope=0.01), nn.Flatten(), nn.Linear(128 * 4 * 4, 1))


def s3_layer_norm_critic():
    """The same as the post has it for the penalty: LayerNorm after the second and third convolution."""
    layers = list(s3_critic())
    layers.insert(3, nn.LayerNorm([64, 7, 7]))
    layers.insert(6, nn.LayerNorm([128, 4, 4]))
    return nn.Sequential(*layers)


def dcgan_critic():
    """DCGAN's, for 64×64 pixels, without its BatchNorm."""
    return nn.Sequential(*convolutions(3, 64, 128, 256, 512, kernel=4, slope=0.2), nn.Conv2d(512, 1, 4))


def perceptron(*widths):
    layers = [layer for wide, wider in pairwise(widths) for layer in (nn.Linear(wide, wider), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], 1))


def eager(critic, real, fake, eps):
    x = (eps * real + (1 - eps) * fake).requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    return ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def to_the_parameters(penalty):
    return lambda critic, real, fake, eps: backward(penalty(critic, real, fake, eps), *critic.parameters())


def case(name, critic, *shape):
    def make(device, dtype):
        real, fake = torch.randn(2, *shape, device=device, dtype=dtype)
        eps = torch.rand(shape[0], *[1] * (len(shape) - 1), device=device, dtype=dtype)
        return critic().to(device, dtype), real, fake, eps

    return Case(
        name=f"gradient_penalty/{name}",
        what=f"value and parameter gradients, batch {shape[0]}",
        make=make,
        contenders={
            OURS: to_the_parameters(lambda critic, real, fake, eps: wk.gradient_penalty(critic, real, fake, eps=eps)),
            "eager": to_the_parameters(eager),
        },
        reference=to_the_parameters(
            lambda critic, real, fake, eps: wk.reference.gradient_penalty(critic, real, fake, eps=eps)
        ),
    )


CASES = (
    case("s0", s0_critic, 64, 1, 28, 28),
    case("s3", s3_critic, 64, 1, 28, 28),
    case("s3-layer-norm", s3_layer_norm_critic, 64, 1, 28, 28),
    case("dcgan64", dcgan_critic, 16, 3, 64, 64),
    case("mlp", lambda: perceptron(784, 512, 512, 512), 64, 784),
    case("toy", lambda: perceptron(2, 512, 512, 512), 256, 2),
    case("tiny", lambda: perceptron(2, 8, 8), 1, 2),
)
