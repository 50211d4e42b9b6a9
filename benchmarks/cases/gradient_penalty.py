"""A whole gradient penalty: its value, and its gradients in the critic's parameters through a double backward."""

import torch
from torch import nn

import wgan_kernels as wk

from ..case import OURS, Case, backward
from ..networks import (
    LabelledCritic,
    blank,
    dcgan_critic,
    operations,
    perceptron,
    s0_critic,
    s3_batch_norm_critic,
    s3_critic,
    s3_layer_norm_critic,
    s3_minibatch_critic,
    s3_spectral_norm_critic,
    size,
)
from ..peers.compile import functional_penalty
from ..peers.question import task, weights

KINKS = 1e-3  # a flip of one activation in a batch of 64 was seen to change 5e-3 of an element, 1e-4 of a norm
COMPILED = ("s0", "s3", "dcgan64")  # others would add nothing but the time to compile them


def eager(critic, real, fake, eps):
    x = (eps * real + (1 - eps) * fake).requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    return ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def to_the_parameters(penalty):
    return lambda critic, real, fake, eps: backward(penalty(critic, real, fake, eps), *critic.parameters())


def told(critic, real, fake, eps):
    networks = {"critic": (critic, real.shape[1:])}
    return task("gradient_penalty", networks), weights(networks) | {"real": real, "fake": fake, "eps": eps}


def case(name, critic, *shape, counted=None, told=told):
    """counted: what makes the network by whose layers operations are counted, where not ``critic``."""

    def make(device, dtype):
        real, fake = torch.randn(2, *shape, device=device, dtype=dtype)
        eps = torch.rand(shape[0], *[1] * (len(shape) - 1), device=device, dtype=dtype)
        return critic().to(device, dtype), real, fake, eps

    network = blank(counted or critic)
    contenders = {
        OURS: to_the_parameters(lambda critic, real, fake, eps: wk.gradient_penalty(critic, real, fake, eps=eps)),
        "eager": to_the_parameters(eager),
    }
    if name in COMPILED:
        contenders["compile"] = functional_penalty(critic)
    return Case(
        name=f"gradient_penalty/{name}",
        what=f"value and parameter gradients, batch {shape[0]}",
        make=make,
        contenders=contenders,
        reference=to_the_parameters(
            lambda critic, real, fake, eps: wk.reference.gradient_penalty(critic, real, fake, eps=eps)
        ),
        traffic=2 * shape[0] * torch.Size(shape[1:]).numel() + 2 * size(network),
        operations=operations(network, *shape[1:], penalty=shape[0]),
        told=told,
        tolerance=KINKS,
    )


def labelled_case(batch):
    """Of a critic that is called by a function, for its labels: no other framework is told of that."""

    def make(device, dtype):
        real, fake = torch.randn(2, batch, 1, 28, 28, device=device, dtype=dtype)
        eps = torch.rand(batch, 1, 1, 1, device=device, dtype=dtype)
        labels = torch.randint(0, 10, (batch,), device=device)
        return LabelledCritic().to(device, dtype), labels, real, fake, eps

    def of(penalty):
        def run(critic, labels, real, fake, eps):
            return backward(penalty(lambda x: critic(x, labels), real, fake, eps), *critic.parameters())

        return run

    network = blank(LabelledCritic)
    return Case(
        name="gradient_penalty/s3-labels",
        what=f"value and parameter gradients, batch {batch}, a channel for the labels",
        make=make,
        contenders={
            OURS: of(lambda function, real, fake, eps: wk.gradient_penalty(function, real, fake, eps=eps)),
            "eager": of(eager),
        },
        reference=of(lambda function, real, fake, eps: wk.reference.gradient_penalty(function, real, fake, eps=eps)),
        traffic=2 * batch * 28 * 28 + 2 * size(network),
        operations=operations(network.body, 2, 28, 28, penalty=batch),
        tolerance=KINKS,
    )


CASES = (
    case("s0", s0_critic, 64, 1, 28, 28),
    case("s3", s3_critic, 64, 1, 28, 28),
    case("s3-layer-norm", s3_layer_norm_critic, 64, 1, 28, 28),
    case("dcgan64", dcgan_critic, 16, 3, 64, 64),
    case("mlp", lambda: perceptron(784, 512, 512, 512), 64, 784),
    case("toy", lambda: perceptron(2, 512, 512, 512), 256, 2),
    case("tiny", lambda: perceptron(2, 8, 8), 1, 2),
    case("silu", lambda: perceptron(2, 128, 128, 128, activation=nn.SiLU), 256, 2),
    labelled_case(64),
    case("s3-batch-norm", s3_batch_norm_critic, 64, 1, 28, 28, told=None),
    case("s3-spectral-norm", s3_spectral_norm_critic, 64, 1, 28, 28, counted=s3_critic, told=None),
    case("s3-minibatch", s3_minibatch_critic, 64, 1, 28, 28, told=None),
)
