"""A critic's whole WGAN-GP gradient as one program: five sweeps at most, and no graph of a double backward."""

from .penalty import penalty
from .program import Program, Refused
from .trace import has_hooks, has_own_forward, trace_step

__all__ = ["Program", "Refused", "has_hooks", "has_own_forward", "penalty", "trace_step"]
