"""The specification: every public function in plain, differentiable PyTorch, with the same signature.

Kernels are compared with this package and with nothing else. It imports torch only and checks no arguments: the public
functions do that before they choose a backend.
"""

from . import optim
from .clip import clip_
from .interpolate import interpolate
from .norm_penalty import gradient_norm_penalty
from .penalty import dragan_penalty, gradient_penalty, r1_penalty, r2_penalty
from .second_order import second_order
from .step import CriticStep, GeneratorStep
from .wasserstein import critic_loss, generator_loss

__all__ = [
    "CriticStep",
    "GeneratorStep",
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
    "second_order",
]
