"""A critic's whole WGAN-GP gradient as one program: five sweeps at most, and no graph of a double backward."""

from .penalty import penalty
from .program import Program, Refused
from .trace import chain, trace

__all__ = ["Program", "Refused", "chain", "penalty", "trace"]
