"""The loop's inside: the networks, their optimizers and one iteration of either method. No files, no terminal."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import wgan_kernels as wk

from . import distributed
from .config import Config
from .data import Images, Toy
from .in_turn import InTurnStep
from .networks import critic_optimizer, generator_optimizer, networks
from .schedules import critic_updates, critic_updates_before, is_penalised, learning_rate

Metrics = dict[str, torch.Tensor]  # 0-d, not synchronised
SAMPLES = 500  # images a forward pass in evaluation mode
RANK_SEEDS = 1_000_003  # between the seeds of two ranks, so that runs with seeds near each other share none


class Trainer:
    """Everything that changes while training, and ``iterate``, which changes it.

    All randomness after the weights' initialisation comes from ``self.random``, so that its state and the networks' are
    the whole state: a run that was stopped and resumed equals one that was not, bit for bit on a CPU.

    Of several ranks, each draws from its own shard of the data with its own random numbers; gradients are averaged
    before every optimizer step and the statistics of BatchNorm after every iteration, so that the networks, their
    average and the optimizers are the same on all of them.
    """

    def __init__(self, config: Config, data: Images | Toy):
        """config: resolved. data: on config.device. Raises UsageError where the networks do not suit them."""
        self.config, self.data = config, data.shard(distributed.rank(), distributed.size())
        self.iteration = 0
        torch.manual_seed(config.seed)
        self.generator, self.critic = networks(config, data.shape)
        distributed.broadcast_([*self.critic.state_dict().values(), *self.generator.state_dict().values()])
        # With its buffers: the mean of BatchNorm's statistics is close to the statistics of the mean weights.
        self.ema = AveragedModel(self.generator, multi_avg_fn=self._average, use_buffers=True).eval()
        self.critic_optimizer = critic_optimizer(config, self.critic)
        self.generator_optimizer = generator_optimizer(config, self.generator)
        if distributed.size() > 1:  # alone, the hook would only keep the optimizers out of CUDA graphs
            for optimizer in (self.critic_optimizer, self.generator_optimizer):
                distributed.average_gradients_before_step(optimizer)
        self.random = torch.Generator(config.device)
        self._seed()
        self.critic_step, self.unpenalised_critic_step, self.generator_step = self._steps()

    def iterate(self, between: Callable[[], None] = lambda: None) -> Metrics:
        """n_critic updates of the critic, one of the generator, one of the average; the last losses of each name.

        ``between`` is called before every update; should it raise, the state is that of no whole iteration.
        """
        config, metrics = self.config, {}
        self._set_lr()
        fakes = self._fakes(critic_updates(config, self.iteration))
        for update, fake in enumerate(fakes, start=critic_updates_before(config, self.iteration)):
            between()
            real = self.data.sample(config.batch_size, self.random)
            step = self.critic_step if is_penalised(config, update) else self.unpenalised_critic_step
            metrics |= step(real, fake)
        between()
        count = config.generator_batch_size or config.batch_size
        generator_loss = self.generator_step(self._noise(count, self.random))["loss"]
        # Each rank's batches are normalised by their own statistics; the running ones are for evaluation.
        distributed.average_(buffer for buffer in self.generator.buffers() if buffer.is_floating_point())
        self.ema.update_parameters(self.generator)
        self.iteration += 1
        losses = {"critic": metrics["loss"], "generator": generator_loss}
        return losses | ({"penalty": metrics["penalty"]} if "penalty" in metrics else {})

    def look(self) -> Metrics:
        """The critic on a batch of real and one of generated samples: mean scores, their difference, and mean ‖∇f‖₂
        between them, as the penalty sees it.

        With random numbers of its own: how often one looks must not change what is trained.
        """
        random = torch.Generator(self.config.device).manual_seed(self.iteration)
        fake = torch.cat(list(self.sample(self._noise(self.config.batch_size, random))))
        real = self.data.sample(self.config.batch_size, random)
        points = wk.interpolate(real, fake, generator=random).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(points).sum(), points)
        slope = wk.gradient_norm_penalty(gradient, target=0.0, reduction="none").sqrt().mean()
        with torch.no_grad():
            of_real, of_fake = self.critic(real).mean(), self.critic(fake).mean()
        return {
            "critic_real": of_real,
            "critic_fake": of_fake,
            "wasserstein": of_real - of_fake,
            "gradient_norm": slope,
        }

    @torch.no_grad()
    def sample(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Samples of the averaged generator: latent [N, L] → batches of [≤ 500, *shape], images in [−1, 1]."""
        for noise in latent.to(self.config.device).split(SAMPLES):
            yield self.ema(noise)

    def is_finite(self) -> bool:
        """Whether every weight and every statistic of both networks is finite; synchronises with the device."""
        state = [*self.critic.state_dict().values(), *self.generator.state_dict().values()]
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in state]).all())

    def state_dict(self) -> dict[str, Any]:
        """The whole state, with the random numbers of all ranks: all of them have to call it."""
        return {
            "iteration": self.iteration,
            "critic": self.critic.state_dict(),
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "critic_optimizer": self.critic_optimizer.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "random": distributed.gather(self.random.get_state()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Takes over a ``state_dict``; whether its random numbers, too.

        They belong to one kind of device and one number of ranks: with another, they start anew.
        """
        self.iteration = state["iteration"]
        for name in ("critic", "generator", "ema", "critic_optimizer", "generator_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        states = state["random"]
        if states.shape == (distributed.size(), self.random.get_state().numel()):
            self.random.set_state(states[distributed.rank()].clone())  # which refuses a view
            return True
        self._seed()
        return False

    def _seed(self) -> None:
        self.random.manual_seed(self.config.seed + self.iteration + RANK_SEEDS * distributed.rank())

    def _lr(self) -> float:
        return learning_rate(self.config, self.iteration)

    def _set_lr(self) -> None:
        lr = self._lr()
        for optimizer in (self.critic_optimizer, self.generator_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def _average(self, averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        """The decay grows to ema_decay over the first iterations, to forget the initial weights: without, the FID at
        iteration 200 was 22.7 instead of 2.5.
        """
        decay = min(self.config.ema_decay, (1 + self.iteration) / (10 + self.iteration))
        get_ema_multi_avg_fn(decay)(averaged, current, count)

    def _steps(self) -> tuple[Callable, Callable, wk.GeneratorStep]:
        """Not tuned on a CPU: what is fastest differs from run to run, and with it the last digits."""
        config = self.config
        shared = {
            "tune": torch.device(config.device).type != "cpu" and not config.deterministic,
            "precision": config.precision if config.precision in ("tf32", "bfloat16") else None,
        }
        critic = self.critic, self.critic_optimizer
        of_generator = wk.GeneratorStep(self.generator, self.critic, self.generator_optimizer, **shared)
        if config.critic_batches == "in-turn":
            return InTurnStep(*critic), InTurnStep(*critic), of_generator
        return (
            wk.CriticStep(
                *critic,
                "gp" if config.method == "wgan-gp" else None,
                config.penalty_weight * config.penalty_every,
                generator=self.random,
                **shared,
            ),
            wk.CriticStep(*critic, penalty=None, **shared),
            of_generator,
        )

    def _fakes(self, count: int) -> Iterator[torch.Tensor]:
        """``count`` batches of generated images. The generator stands still meanwhile: one pass makes n_critic."""
        size = self.config.batch_size
        for done in range(0, count, self.config.n_critic):
            images = self.generator_step.sample(
                self._noise(min(self.config.n_critic, count - done) * size, self.random)
            )
            yield from images.split(size)

    def _noise(self, count: int, random: torch.Generator) -> torch.Tensor:
        return torch.randn(count, self.config.latent, device=self.config.device, generator=random)
