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


def built(make):
    """The skeleton, whose own weights nobody sees: they take no random numbers from the contenders."""
    with torch.random.fork_rng(devices=[]):
        return make()


def squared_distance_from_one(gradients):
    return ((gradients.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def functional_penalty(make):
    """(critic, real, fake, eps) → value, gradients in the parameters: ``torch.func.grad`` twice, as one graph."""

    @cache
    def build():
        skeleton = built(make)

        def penalty(parameters, points):
            total = lambda x: functional_call(skeleton, parameters, (x,)).sum()  # noqa: E731
            return squared_distance_from_one(torch.func.grad(total)(points))

        def value_and_gradients(parameters, real, fake, eps):
            return torch.func.grad_and_value(penalty)(parameters, eps * real + (1 - eps) * fake)

        return torch.compile(value_and_gradients, dynamic=False)

    def run(critic, real, fake, eps):
        parameters = {name: param.detach() for name, param in critic.named_parameters()}
        gradients, value = build()(parameters, real, fake, eps)
        return value, *gradients.values()

    return run


def critic_gradients(make, weight):
    """(critic, real, fake, eps) → gradients of the whole loss: both backward passes traced into one graph."""

    @cache
    def build():
        skeleton = built(make)

        def gradients(parameters, real, fake, eps):
            critic = lambda x: functional_call(skeleton, parameters, (x,))  # noqa: E731
            points = (eps * real + (1 - eps) * fake).detach().requires_grad_()
            (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
            loss = critic(fake).mean() - critic(real).mean() + weight * squared_distance_from_one(slope)
            return torch.autograd.grad(loss, list(parameters.values()))

        return torch.compile(gradients, dynamic=False, fullgraph=True)

    def run(critic, real, fake, eps):
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return build()(dict(critic.named_parameters()), real, fake, eps)

    return run


def mean_gradients(make):
    """(critic, real, fake, factors) → gradients of factors[0]·mean f(real) + factors[1]·mean f(fake), as one graph."""

    @cache
    def build():
        skeleton = built(make)

        def gradients(parameters, real, fake, factors):
            critic = lambda x: functional_call(skeleton, parameters, (x,))  # noqa: E731
            means = (factor * critic(x).mean() for factor, x in zip(factors, (real, fake), strict=True) if factor)
            return torch.autograd.grad(sum(means), list(parameters.values()))

        return torch.compile(gradients, dynamic=False, fullgraph=True)

    def run(critic, real, fake, factors):
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return build()(dict(critic.named_parameters()), real, fake, factors)

    return run


def generator_gradients(make_generator, make_critic):
    """(generator, critic, latent) → gradients of −mean critic(generator(latent)) in the generator, as one graph."""

    @cache
    def build():
        generator, critic = built(make_generator), built(make_critic)

        def gradients(parameters, critic_parameters, latent):
            fake = functional_call(generator, parameters, (latent,))
            loss = -functional_call(critic, critic_parameters, (fake,)).mean()
            return torch.autograd.grad(loss, list(parameters.values()))

        return torch.compile(gradients, dynamic=False, fullgraph=True)

    def run(generator, critic, latent):
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return build()(dict(generator.named_parameters()), dict(critic.named_parameters()), latent)

    return run


def network(make):
    """(network, x) → network(x), as one graph."""

    @cache
    def build():
        skeleton = built(make)
        return torch.compile(lambda parameters, x: functional_call(skeleton, parameters, (x,)), dynamic=False)

    return lambda own, x: build()(dict(own.named_parameters()), x)
