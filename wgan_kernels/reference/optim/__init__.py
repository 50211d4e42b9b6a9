"""torch's optimizers, followed by the clip: what a fused step has to equal."""

from .adam import Adam
from .rmsprop import RMSprop

__all__ = ["Adam", "RMSprop"]
