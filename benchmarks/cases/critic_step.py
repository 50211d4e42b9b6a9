"""A critic's whole update with the gradient penalty: losses, penalty, gradients, Adam; and the same without one."""

from functools import partial

import torch

import wgan_kernels as wk
from wgan_kernels.training import distributed

from ..case import OURS, WITHOUT, Case, backward, label
from ..networks import (
    CURVED,
    LabelledCritic,
    blank,
    dcgan_critic,
    describe,
    operations,
    perceptron,
    s0_critic,
    s3_critic,
    s3_layer_norm_critic,
    size,
)
from ..peers.compile import critic_gradients
from ..peers.question import task, weights
from .gradient_penalty import COMPILED, KINKS

WEIGHT, LR, BETAS, EPS = 10.0, 1e-4, (0.0, 0.9), 1e-8
ADAM = {"lr": LR, "betas": BETAS}
# How many times a step without a penalty: 10 passes over the multiply-adds instead of 6, below curved layers 12.
LEAST, LEAST_CURVED = 10 / 6, 12 / 6


class Plain:
    """The loop that a user writes."""

    def __init__(self, critic, make, gradient_penalty, critic_loss, weight=WEIGHT):
        self.critic, self.optimizer, self.weight = critic, make(critic.parameters()), weight
        self.gradient_penalty, self.critic_loss = gradient_penalty, critic_loss

    def __call__(self, real, fake, *condition):
        critic = given(self.critic, condition)
        penalty = self.gradient_penalty and self.gradient_penalty(critic, real, fake)
        loss = self.critic_loss(critic(real), critic(fake), penalty, weight=self.weight)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def given(critic, condition):
    return (lambda samples: critic(samples, *condition)) if condition else critic


def as_unit(kind, critic):
    return kind(critic, wk.optim.Adam(critic.parameters(), **ADAM), weight=WEIGHT)


class Compiled:
    """The gradients as one graph, then PyTorch's fused Adam."""

    def __init__(self, critic, gradients):
        self.critic, self.gradients = critic, gradients
        self.optimizer = torch.optim.Adam(critic.parameters(), **ADAM, fused=True)

    def __call__(self, real, fake):
        for param, grad in zip(
            self.critic.parameters(), self.gradients(self.critic, real, fake, drawn_for(real)), strict=True
        ):
            param.grad = grad
        self.optimizer.step()


def drawn_for(real):
    """ε as every contender draws it for this batch."""
    compute = torch.float64 if real.dtype == torch.float64 else torch.float32
    eps = torch.rand(real.shape[0], *[1] * (real.dim() - 1), dtype=compute, device=real.device)
    return eps.to(real.dtype)


def update(name, make):
    """A contender: one update by the step that ``make(critic)`` returned for this critic, with ε drawn alike.

    In several processes each draws its own, whoever contends.
    """

    def run(critic, real, fake, *condition):
        steps = critic.__dict__.setdefault("steps_of_contenders", {})
        if name not in steps:
            steps[name] = make(critic)
        torch.manual_seed(distributed.rank())
        steps[name](real, fake, *condition)
        return tuple(param.grad for param in critic.parameters())

    return run


CONTENDERS = {
    OURS: update(OURS, partial(as_unit, wk.CriticStep)),
    "drop-in": update(
        "drop-in",
        partial(
            Plain, make=partial(wk.optim.Adam, **ADAM), gradient_penalty=wk.gradient_penalty, critic_loss=wk.critic_loss
        ),
    ),
    "eager": update(
        "eager",
        partial(
            Plain,
            make=partial(torch.optim.Adam, **ADAM),
            gradient_penalty=wk.reference.gradient_penalty,
            critic_loss=wk.reference.critic_loss,
        ),
    ),
}


UNPENALISED = update(
    WITHOUT,
    partial(Plain, make=partial(torch.optim.Adam, **ADAM), gradient_penalty=None, critic_loss=wk.reference.critic_loss),
)


def drawn(critic, real, *others):
    """In double precision the same seed draws another ε than the contenders had: the reference is given theirs."""
    torch.manual_seed(0)
    return (drawn_for(real),)


def reference(critic, real, fake, *others, weight=WEIGHT):
    """The gradients of a step; without a penalty for ``weight`` 0."""
    *condition, eps = others
    of_samples = given(critic, condition)
    penalty = wk.reference.gradient_penalty(of_samples, real, fake, eps=eps) if weight else None
    loss = wk.reference.critic_loss(of_samples(real), of_samples(fake), penalty, weight=weight)
    return backward(loss, *critic.parameters())[1:]


def told(critic, real, fake):
    (eps,) = drawn(critic, real, fake)
    networks = {"critic": (critic, real.shape[1:])}
    optimizer = ["adam", {**ADAM, "eps": EPS}]
    arrays = weights(networks) | {"real": real, "fake": fake, "eps": eps}
    return task("critic_step", networks, weight=WEIGHT, optimizer=optimizer), arrays


def of_critic(name, make, *shape):
    def inputs(device, dtype):
        real, fake = torch.randn(2, *shape, device=device, dtype=dtype)
        return make().to(device, dtype), real, fake

    contenders, network = dict(CONTENDERS), blank(make)
    if name in COMPILED and shape[0] > 8:
        contenders["compile"] = update("compile", partial(Compiled, gradients=critic_gradients(make, WEIGHT)))
    curved = any(layer["kind"] in CURVED for layer in describe(network, *shape[1:]))
    return _case(
        name,
        f"an update of the {name} critic on a batch of {shape[0]}",
        shape,
        network,
        make=inputs,
        contenders=contenders,
        operations=operations(network, *shape[1:], backward=2 * shape[0], penalty=shape[0]),
        told=told,
        least=LEAST_CURVED if curved else LEAST,
    )


def _case(name, what, shape, network, **more):
    return Case(
        name=f"critic_step/{name}/{label(shape)}",
        what=what,
        reference=reference,
        added=drawn,
        tolerance=KINKS,
        # Real and fake samples read; each weight, its gradient and two averages read or written.
        traffic=2 * torch.Size(shape).numel() + 8 * size(network),
        units={WITHOUT: (UNPENALISED, partial(reference, weight=0.0))},
        **more,
    )


def labelled_case(batch):
    """Of a conditional critic: no other framework is told of that."""

    def inputs(device, dtype):
        real, fake = torch.randn(2, batch, 1, 28, 28, device=device, dtype=dtype)
        return LabelledCritic().to(device, dtype), real, fake, torch.randint(0, 10, (batch,), device=device)

    network = blank(LabelledCritic)
    return _case(
        "s3-labels",
        f"an update of the s3 critic on a batch of {batch}, with a channel for the labels",
        (batch, 1, 28, 28),
        network,
        make=inputs,
        contenders=CONTENDERS,
        operations=operations(network.body, 2, 28, 28, backward=2 * batch, penalty=batch),
        least=LEAST,
    )


CASES = (
    of_critic("s0", s0_critic, 64, 1, 28, 28),
    of_critic("s3", s3_critic, 64, 1, 28, 28),
    of_critic("s3", s3_critic, 8, 1, 28, 28),
    of_critic("s3-layer-norm", s3_layer_norm_critic, 64, 1, 28, 28),
    of_critic("dcgan64", dcgan_critic, 16, 3, 64, 64),
    of_critic("mlp", partial(perceptron, 784, 512, 512, 512), 64, 784),
    of_critic("tiny", partial(perceptron, 2, 8, 8), 1, 2),
    labelled_case(64),
)
