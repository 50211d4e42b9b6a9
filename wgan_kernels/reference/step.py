"""The two updates as the papers write them, by autograd; ``tune`` and ``precision`` leave no choice here."""

import torch

from .interpolate import interpolate
from .norm_penalty import gradient_norm_penalty
from .penalty import input_gradient
from .wasserstein import critic_loss, generator_loss


class CriticStep:
    """WGAN-GP, algorithm 1, lines 4 to 9 (Gulrajani et al. 2017); without a penalty WGAN's, lines 3 to 6."""

    plan = "the reference: autograd"

    def __init__(self, critic, optimizer, penalty="gp", weight=10.0, *, tune=True, generator=None, precision=None):
        self.critic, self.optimizer, self.penalty, self.weight = critic, optimizer, penalty, weight
        self.generator = generator

    def __call__(self, real, fake, *condition):
        def critic(samples):
            return self.critic(samples, *condition)

        real, fake, *condition = (given.detach() for given in (real, fake, *condition))
        points = real
        if self.penalty in ("gp", "one-sided"):
            points = interpolate(real, fake, generator=self.generator)
        real_scores, fake_scores = critic(real), critic(fake)
        found, penalty = {}, None
        if self.penalty is not None:
            gradient = input_gradient(critic, points)
            target, factor = (0.0, 0.5) if self.penalty == "r1" else (1.0, 1.0)
            penalty = factor * gradient_norm_penalty(gradient, target=target, one_sided=self.penalty == "one-sided")
            norm = gradient_norm_penalty(gradient.detach(), target=0.0, reduction="none").sqrt().mean()
            found = {"penalty": penalty.detach(), "gradient_norm": norm}
        loss = critic_loss(real_scores, fake_scores, penalty, weight=self.weight)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), "wasserstein": -critic_loss(real_scores, fake_scores).detach()} | found


class GeneratorStep:
    """WGAN, algorithm 1, lines 9 to 11 (Arjovsky et al. 2017)."""

    def __init__(self, generator, critic, optimizer, *, tune=True, ema=None, precision=None):
        self.generator, self.critic, self.optimizer, self.ema = generator, critic, optimizer, ema

    def __call__(self, latent, *condition):
        wanted = [param for group in self.optimizer.param_groups for param in group["params"]]
        loss = generator_loss(self.critic(self.generator(latent, *condition), *condition))
        self.optimizer.zero_grad()
        loss.backward(inputs=wanted)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.generator)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def sample(self, latent, *condition):
        return self.generator(latent, *condition)
