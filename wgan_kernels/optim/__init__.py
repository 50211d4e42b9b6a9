"""torch's optimizers with the clip in their step: one pass over parameters, gradients and states."""

from .adam import Adam
from .rmsprop import RMSprop

__all__ = ["Adam", "RMSprop"]
