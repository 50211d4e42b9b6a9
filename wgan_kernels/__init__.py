"""Fused kernels for Wasserstein GANs on PyTorch. Needs torch alone; ``backends()`` tells what runs on this machine."""

from . import optim, reference
from ._dispatch import backends, use_backend
from .critic_step import CriticStep
from .generator_step import GeneratorStep
from .ops.clip import clip_
from .ops.interpolate import interpolate
from .ops.norm_penalty import gradient_norm_penalty
from .ops.wasserstein import critic_loss, generator_loss
from .penalty import dragan_penalty, gradient_penalty, r1_penalty, r2_penalty
from .second_order import second_order

__version__ = "0.1.0"

__all__ = [
    "CriticStep",
    "GeneratorStep",
    "backends",
    "clip_",
    "critic_loss",
    "dragan_penalty",
    "generator_loss",
    "gradient_norm_penalty",
    "gradient_penalty",
    "interpolate",
    "optim",
    "r1_penalty",
    "r2_penalty",
    "reference",
    "second_order",
    "use_backend",
]
