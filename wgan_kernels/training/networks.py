"""What a configuration trains: its two networks on its device, and their optimizers."""

import torch
from torch import nn

import wgan_kernels as wk

from . import models
from .config import Config
from .errors import UsageError

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def networks(config: Config, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """(generator, critic) for samples of ``shape``. Raises UsageError where they cannot, or do not suit the method."""
    critic = models.critic(config.critic, shape)
    generator = models.generator(config.generator, config.latent, shape)
    if config.method == "wgan-gp" and any(isinstance(module, BATCH_NORM) for module in critic.modules()):
        raise UsageError(
            f"--critic {config.critic}: has BatchNorm, which ties a batch's images to each other, while the penalty is "
            "about each one's own gradient; choose another critic, or --method wgan"
        )
    if config.clipped == "convolutions" and not _kernels(critic):
        raise UsageError(f"--clipped convolutions: --critic {config.critic} has none; leave --clipped out")
    # Channels last is what a CPU's convolutions are fastest in.
    place = {"device": config.device, "memory_format": torch.channels_last}
    return generator.to(**place), critic.to(**place)


def critic_optimizer(config: Config, critic: nn.Module) -> torch.optim.Optimizer:
    """For wgan its steps clamp: every parameter, or the kernels of the convolutions alone."""
    if config.method == "wgan-gp":
        return _optimizer(config, critic.parameters())
    if config.clipped == "all":
        return _optimizer(config, critic.parameters(), config.clip)
    kernels = _kernels(critic)
    others = [param for param in critic.parameters() if all(param is not kernel for kernel in kernels)]
    return _optimizer(config, [{"params": kernels, "clip": config.clip}, {"params": others}])


def generator_optimizer(config: Config, generator: nn.Module) -> torch.optim.Optimizer:
    return _optimizer(config, generator.parameters())


def _optimizer(config: Config, params, clip: float | None = None) -> torch.optim.Optimizer:
    """WGAN asks for an optimizer without momentum (its section 4); WGAN-GP uses Adam."""
    if config.optimizer == "rmsprop":
        return wk.optim.RMSprop(params, config.lr, alpha=config.alpha, clip=clip)
    return wk.optim.Adam(params, config.lr, betas=(config.beta1, config.beta2), clip=clip)


def _kernels(critic: nn.Module) -> list[nn.Parameter]:
    return [module.weight for module in critic.modules() if isinstance(module, nn.Conv2d)]
