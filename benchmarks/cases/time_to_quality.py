"""Training from the first step until samples are good: eight Gaussians on a circle, WGAN-GP, both networks perceptrons.

Good is a mean sliced Wasserstein distance to held-out samples below ``GOOD``; two sets of real samples are 0.03 apart.
Every run begins with the same weights and draws the same numbers; rounding makes the paths differ later, so this says
that training works and how long it takes, and less than ``iteration`` about the speed of a step.
"""

import copy
import math
from functools import partial

import torch
from torch import nn

import wgan_kernels as wk

from ..case import OURS, Case
from ..networks import perceptron
from .critic_step import Plain as PlainCriticStep

N_CRITIC, BATCH, LATENT, WIDTH = 5, 256, 2, 128
LR, BETAS, WEIGHT = 1e-3, (0.5, 0.9), 0.1
GOOD, LOOK_EVERY, AT_MOST, HELD_OUT, DIRECTIONS = 0.13, 25, 600, 2000, 64


def gaussians(count, random, like):
    """[count, 2]: the ring of the WGAN-GP paper's toy, standard deviation 0.02, scaled to radius 1.41."""
    angles = torch.randint(8, (count,), generator=random, device=like.device) * (math.pi / 4)
    centres = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return ((centres + 0.02 * torch.randn(count, 2, generator=random, device=like.device)) / 1.414).to(like)


def distance(a, b):
    """Mean over directions of the Wasserstein distance in one dimension, which is that of sorted projections."""
    angles = torch.arange(DIRECTIONS, device=a.device, dtype=a.dtype) * (math.pi / DIRECTIONS)
    directions = torch.stack([angles.cos(), angles.sin()])
    return ((a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values).abs().mean()


def by_units(critic, generator):
    adam = partial(wk.optim.Adam, lr=LR, betas=BETAS)
    critic_step = wk.CriticStep(critic, adam(critic.parameters()), weight=WEIGHT)
    return critic_step, wk.GeneratorStep(generator, critic, adam(generator.parameters()))


def plainly(critic, generator):
    adam = partial(torch.optim.Adam, lr=LR, betas=BETAS)
    critic_step = PlainCriticStep(critic, adam, wk.reference.gradient_penalty, wk.reference.critic_loss, WEIGHT)
    return critic_step, wk.reference.GeneratorStep(generator, critic, adam(generator.parameters()))


def training(steps):
    """A contender: [1], 1 where samples became good in time, else 0. ``steps(critic, generator)`` makes the updates."""

    def run(networks, noise, held_out):
        critic, generator = copy.deepcopy(networks)
        update_critic, update_generator = steps(critic, generator)
        torch.manual_seed(0)
        random = torch.Generator(noise.device).manual_seed(1)
        draw = lambda: torch.randn(BATCH, LATENT, generator=random, device=noise.device).to(noise)  # noqa: E731
        for iteration in range(1, AT_MOST + 1):
            for _ in range(N_CRITIC):
                update_critic(gaussians(BATCH, random, noise), update_generator.sample(draw()))
            update_generator(draw())
            if iteration % LOOK_EVERY == 0 and distance(update_generator.sample(noise), held_out) < GOOD:
                return (noise.new_ones(1),)
        return (noise.new_zeros(1),)

    return run


def make(device, dtype):
    generator = nn.Sequential(*list(perceptron(LATENT, WIDTH, WIDTH, WIDTH))[:-1], nn.Linear(WIDTH, 2))
    networks = nn.ModuleList([perceptron(2, WIDTH, WIDTH, WIDTH), generator]).to(device, dtype)
    noise = torch.randn(HELD_OUT, LATENT, device=device, dtype=dtype)
    return networks, noise, gaussians(HELD_OUT, torch.Generator(device).manual_seed(2), noise)


CASES = (
    Case(
        name="time_to_quality/8-gaussians",
        what=f"WGAN-GP until the samples' sliced Wasserstein distance is below {GOOD}",
        make=make,
        contenders={OURS: training(by_units), "eager": training(plainly)},
        reference=lambda networks, noise, held_out: (noise.new_ones(1),),
        rounds=3,
        large=True,
    ),
)
