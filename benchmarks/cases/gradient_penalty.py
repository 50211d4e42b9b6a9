"""A whole gradient penalty: its value, and its gradients in the critic's parameters through a double backward."""

import torch
from torch import nn

import wgan_kernels as wk

from ..case import OURS, Case, backward


def conv_critic():
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 1),
    )


def mlp_critic():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )


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


CASES = (case("conv", conv_critic, 64, 1, 28, 28), case("mlp", mlp_critic, 64, 1, 28, 28))
