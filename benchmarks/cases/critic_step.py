"""A critic's whole update with the gradient penalty: losses, penalty, gradients, Adam."""

from functools import partial

import torch

import wgan_kernels as wk

from ..case import OURS, Case, label
from .gradient_penalty import dcgan_critic, perceptron, s0_critic, s3_critic, s3_layer_norm_critic

WEIGHT, LR, BETAS = 10.0, 1e-4, (0.0, 0.9)


class Plain:
    """The loop that a user writes."""

    def __init__(self, critic, make, gradient_penalty, critic_loss):
        self.critic, self.optimizer = critic, make(critic.parameters(), lr=LR, betas=BETAS)
        self.gradient_penalty, self.critic_loss = gradient_penalty, critic_loss

    def __call__(self, real, fake):
        penalty = self.gradient_penalty(self.critic, real, fake)
        loss = self.critic_loss(self.critic(real), self.critic(fake), penalty, weight=WEIGHT)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def as_unit(kind, critic):
    return kind(critic, wk.optim.Adam(critic.parameters(), lr=LR, betas=BETAS), weight=WEIGHT)


def update(name, make):
    """A contender: one update by the step that ``make(critic)`` returned for this critic, with ε drawn alike."""

    def run(critic, real, fake):
        steps = critic.__dict__.setdefault("steps_of_contenders", {})
        if name not in steps:
            steps[name] = make(critic)
        torch.manual_seed(0)
        steps[name](real, fake)
        return tuple(param.grad for param in critic.parameters())

    return run


CONTENDERS = {
    OURS: update(OURS, partial(as_unit, wk.CriticStep)),
    "drop-in": update(
        "drop-in",
        partial(Plain, make=wk.optim.Adam, gradient_penalty=wk.gradient_penalty, critic_loss=wk.critic_loss),
    ),
    "eager": update(
        "eager",
        partial(
            Plain,
            make=torch.optim.Adam,
            gradient_penalty=wk.reference.gradient_penalty,
            critic_loss=wk.reference.critic_loss,
        ),
    ),
}


def of_critic(name, make, *shape):
    def inputs(device, dtype):
        real, fake = torch.randn(2, *shape, device=device, dtype=dtype)
        return make().to(device, dtype), real, fake

    return Case(
        name=f"critic_step/{name}/{label(shape)}",
        what=f"an update of the {name} critic on a batch of {shape[0]}",
        make=inputs,
        contenders=CONTENDERS,
        reference=update("reference", partial(as_unit, wk.reference.CriticStep)),
    )


CASES = (
    of_critic("s0", s0_critic, 64, 1, 28, 28),
    of_critic("s3", s3_critic, 64, 1, 28, 28),
    of_critic("s3", s3_critic, 8, 1, 28, 28),
    of_critic("s3-layer-norm", s3_layer_norm_critic, 64, 1, 28, 28),
    of_critic("dcgan64", dcgan_critic, 16, 3, 64, 64),
    of_critic("mlp", partial(perceptron, 784, 512, 512, 512), 64, 784),
    of_critic("tiny", partial(perceptron, 2, 8, 8), 1, 2),
)
