"""The loop's inside: the networks, their optimizers and one iteration of either method. No files, no terminal."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import wgan_kernels as wk

from .config import Config
from .data import Digits
from .models import Critic, Generator, NormalisedCritic
from .steps import Metrics, clipped_critic_step, generator_step, input_gradient_norm, penalised_critic_step

SAMPLES = 500  # images a forward pass in evaluation mode


class Trainer:
    """Everything that changes while training, and ``iterate``, which changes it.

    All randomness after the weights' initialisation comes from ``self.random``, so that its state and the networks' are
    the whole state: a run that was stopped and resumed equals one that was not, bit for bit on a CPU.
    """

    def __init__(self, config: Config, digits: Digits):
        """config: resolved. digits: on config.device."""
        self.config, self.digits = config, digits
        self.iteration = 0
        torch.manual_seed(config.seed)
        critic = Critic() if config.method == "wgan-gp" else NormalisedCritic()
        self.critic = critic.to(config.device, memory_format=torch.channels_last)
        self.generator = Generator(config.latent).to(config.device, memory_format=torch.channels_last)
        # With its buffers: the mean of BatchNorm's statistics is close to the statistics of the mean weights.
        self.ema = AveragedModel(self.generator, multi_avg_fn=self._average, use_buffers=True).eval()
        self.critic_optimizer = _optimizer(config, self.critic, clip=config.clip if config.method == "wgan" else None)
        self.generator_optimizer = _optimizer(config, self.generator)
        self.random = torch.Generator(config.device).manual_seed(config.seed)
        self.critic_step = self._critic_step()

    def iterate(self) -> Metrics:
        """n_critic updates of the critic, one of the generator, one of the average; the last update's metrics."""
        config = self.config
        self._set_lr()
        with self._precision():
            # The generator stands still meanwhile: one pass makes the images of all n_critic updates.
            with torch.no_grad():
                fakes = self.generator(self._noise(config.n_critic * config.batch_size, self.random))
            for fake in fakes.split(config.batch_size):
                real = self.digits.sample(config.batch_size, self.random)
                metrics = self.critic_step(self.critic, self.critic_optimizer, real, fake)
            noise = self._noise(config.batch_size, self.random)
            metrics |= generator_step(self.generator, self.critic, self.generator_optimizer, noise)
        self.ema.update_parameters(self.generator)
        self.iteration += 1
        return metrics

    def gradient_norm(self) -> torch.Tensor:
        """mean ‖∇critic‖₂ at random points between real and generated images, as the penalty sees it.

        With random numbers of its own: how often one looks must not change what is trained.
        """
        random = torch.Generator(self.config.device).manual_seed(self.iteration)
        with self._precision():
            (fake,) = self.sample(self._noise(self.config.batch_size, random))
            real = self.digits.sample(self.config.batch_size, random)
            return input_gradient_norm(self.critic, wk.interpolate(real, fake, generator=random))

    @torch.no_grad()
    def sample(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Images of the averaged generator: latent [N, L] → batches of [≤ 500, 1, 28, 28] in [−1, 1]."""
        for noise in latent.to(self.config.device).split(SAMPLES):
            yield self.ema(noise)

    def is_finite(self) -> bool:
        """Whether every weight and every statistic of both networks is finite; synchronises with the device."""
        state = [*self.critic.state_dict().values(), *self.generator.state_dict().values()]
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in state]).all())

    def state_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "critic": self.critic.state_dict(),
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "random": self.random.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a ``state_dict``. A generator's state belongs to one kind of device: on another it starts anew."""
        self.iteration = state["iteration"]
        for name in ("critic", "generator", "ema", "critic_optimizer", "generator_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        if state["random"].numel() == self.random.get_state().numel():
            self.random.set_state(state["random"])
        else:
            self.random.manual_seed(self.config.seed + self.iteration)

    def _set_lr(self) -> None:
        """lr · (1 − (1 − lr_end) · iteration / iterations): by the position alone, so that nothing has to be saved."""
        config = self.config
        lr = config.lr * (1 - (1 - config.lr_end) * self.iteration / config.iterations)
        for optimizer in (self.critic_optimizer, self.generator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def _average(self, averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        """The decay grows to ema_decay over the first iterations, to forget the initial weights: without, the FID at
        iteration 200 was 22.7 instead of 2.5.
        """
        decay = min(self.config.ema_decay, (1 + self.iteration) / (10 + self.iteration))
        get_ema_multi_avg_fn(decay)(averaged, current, count)

    def _critic_step(self) -> Callable[..., Metrics]:
        if self.config.method == "wgan":
            return clipped_critic_step
        return partial(penalised_critic_step, weight=self.config.penalty_weight, random=self.random)

    def _noise(self, count: int, random: torch.Generator) -> torch.Tensor:
        return torch.randn(count, self.config.latent, device=self.config.device, generator=random)

    def _precision(self) -> torch.autocast:
        device = torch.device(self.config.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bfloat16")


def _optimizer(config: Config, network: torch.nn.Module, clip: float | None = None) -> torch.optim.Optimizer:
    """WGAN asks for an optimizer without momentum (its section 4); WGAN-GP for Adam."""
    if config.method == "wgan":
        return wk.optim.RMSprop(network.parameters(), config.lr, clip=clip)
    return wk.optim.Adam(network.parameters(), config.lr, betas=(0.5, 0.9), clip=clip)
