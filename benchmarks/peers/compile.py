"""``torch.compile`` as a baseline: of a formula, of a functional penalty by ``torch.func``, of a whole loss and its
backward passes.

A critic is a skeleton that is built once, run with the parameters of whoever is at hand: compiled once, for all copies.
"""

from functools import cache

import torch
from torch.func import functional_call


def compiled(function):
    """``function`` compiled for the exact shape it gets, and only once it is called: listing cases stays free."""

    @cache
    def build():
        return torch.compile(function, dynamic=False)

    return lambda *args: build()(*args)


def squared_distance_from_one(gradients):
    return ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def functional_penalty(make):
    """(critic, real, fake, eps) → value, gradients in the parameters: ``torch.func.grad`` twice, as one graph."""
    skeleton = cache(make)

    def penalty(parameters, points):
        total = lambda x: functional_call(skeleton(), parameters, (x,)).sum()  # noqa: E731
        return squared_distance_from_one(torch.func.grad(total)(points))

    @compiled
    def value_and_gradients(parameters, real, fake, eps):
        return torch.func.grad_and_value(penalty)(parameters, eps * real + (1 - eps) * fake)

    def run(critic, real, fake, eps):
        skeleton().to(real)
        gradients, value = value_and_gradients(detached(critic), real, fake, eps)
        return value, *gradients.values()

    return run


def detached(network):
    return {name: param.detach() for name, param in network.named_parameters()}


def critic_gradients(make, weight):
    """(critic, real, fake, eps) → gradients of the whole loss: both backward passes traced into one graph."""
    skeleton = cache(make)

    def gradients(parameters, real, fake, eps):
        critic = lambda x: functional_call(skeleton(), parameters, (x,))  # noqa: E731
        points = (eps * real + (1 - eps) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
        loss = critic(fake).mean() - critic(real).mean() + weight * squared_distance_from_one(slope)
        return torch.autograd.grad(loss, list(parameters.values()))

    whole = compiled(gradients)

    def run(critic, real, fake, eps):
        skeleton().to(real)
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return whole(dict(critic.named_parameters()), real, fake, eps)

    return run
