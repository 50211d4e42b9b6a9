"""A critic's whole WGAN-GP gradient as one program: five sweeps at most, and no graph of a double backward."""

from .input_gradient import input_gradient
from .program import Program, Refused
from .trace import trace

__all__ = ["Program", "Refused", "input_gradient", "trace"]
