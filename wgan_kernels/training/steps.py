"""One update of the critic, one of the generator: the algorithms of the two papers, line by line.

Every function returns 0-d tensors and synchronises nothing: reading them is the caller's decision.
"""

from collections.abc import Callable

import torch
from torch import nn

import wgan_kernels as wk

Metrics = dict[str, torch.Tensor]


def clipped_critic_step(critic: nn.Module, optimizer: wk.optim.RMSprop, real, fake) -> Metrics:
    """WGAN, algorithm 1, lines 3 to 7 (Arjovsky et al. 2017); the optimizer clips. real, fake: [B, 1, 28, 28]."""
    real_scores, fake_scores = critic(real).float(), critic(fake).float()
    loss = wk.critic_loss(real_scores, fake_scores)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return _scores(real_scores, fake_scores)


def penalised_critic_step(
    critic: nn.Module, optimizer: torch.optim.Optimizer, real, fake, *, weight: float, random: torch.Generator
) -> Metrics:
    """WGAN-GP, algorithm 1, lines 4 to 9 (Gulrajani et al. 2017). real, fake: [B, 1, 28, 28].

    One pass scores real and fake together: the critic has no normalisation over the batch, so this changes nothing but
    the time.
    """
    real_scores, fake_scores = critic(torch.cat([real, fake])).float().chunk(2)
    penalty = wk.gradient_penalty(critic, real, fake, generator=random)
    loss = wk.critic_loss(real_scores, fake_scores, penalty, weight=weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return _scores(real_scores, fake_scores) | {"penalty": penalty.detach()}


def generator_step(
    generator: nn.Module, critic: nn.Module, optimizer: torch.optim.Optimizer, latent: torch.Tensor
) -> Metrics:
    """Both papers' last lines: the generator descends −mean critic(generator(z)). latent: [B, L]."""
    critic.requires_grad_(False)  # saves the critic's weight gradients, a third of the step
    loss = wk.generator_loss(critic(generator(latent)).float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    critic.requires_grad_(True)
    return {"generator": loss.detach()}


def input_gradient_norm(critic: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """mean ‖∇critic(x)‖₂ over the batch: what the penalty pulls to 1. images: [B, 1, 28, 28]."""
    images = images.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(images).sum(), images)
    return wk.gradient_norm_penalty(grad, target=0.0, reduction="none").sqrt().mean()


def _scores(real_scores: torch.Tensor, fake_scores: torch.Tensor) -> Metrics:
    real, fake = real_scores.detach().mean(), fake_scores.detach().mean()
    return {"critic_real": real, "critic_fake": fake, "wasserstein": real - fake}
