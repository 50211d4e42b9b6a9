"""Piecewise linear activations: y = φ(x) with a slope that depends on the piece alone.

The pullback δ ↦ φ′·δ is its own adjoint, and the result tells the piece, so that the input need not be kept (but for
|x|).
Smooth ones (tanh, softplus, …) have curvature, so that the pass that PyTorch runs for nothing here is needed there.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch

from .piecewise import Maps, piecewise

aten = torch.ops.aten
# By name: to be found by its arguments, each would take longer than it runs on a small layer.
_threshold_over = aten.threshold_backward.grad_input
_leaky_over = aten.leaky_relu_backward.grad_input
_hardtanh_over = aten.hardtanh_backward.grad_input


class Piece(NamedTuple):
    """forward: x → y; in_place: the same, written over x; pullback: (δ, y) → φ′·δ; pull_over: the same, over δ.

    slope: that of x ≤ 0, where x > 0 stays; None for other pieces.
    """

    forward: Callable
    in_place: Callable
    pullback: Callable
    pull_over: Callable | None = None
    slope: float | None = None

    def __call__(self, x, in_place=False):
        return piecewise(x, _maps(self, in_place), in_place)


@functools.lru_cache(maxsize=1024)  # they are asked for in every pass
def _maps(piece, in_place):
    function = piece.in_place if in_place else piece.forward

    def forward(x):
        y = function(x)
        return y, y

    return Maps(forward, piece.pullback, piece.pullback)


# max(0, x)
relu = Piece(
    torch.relu,
    torch.relu_,
    lambda delta, y: aten.threshold_backward(delta, y, 0),
    lambda delta, y: _threshold_over(delta, y, 0, grad_input=delta),
    slope=0.0,
)


@functools.lru_cache(maxsize=1024)
def leaky_relu(slope):
    """x where x > 0, slope·x elsewhere; slope ≥ 0, so that the result tells the piece."""
    return Piece(
        lambda x: aten.leaky_relu(x, slope),
        lambda x: aten.leaky_relu_(x, slope),
        lambda delta, y: aten.leaky_relu_backward(delta, y, slope, True),
        lambda delta, y: _leaky_over(delta, y, slope, True, grad_input=delta),
        slope=float(slope),
    )


@functools.lru_cache(maxsize=1024)
def hardtanh(low, high):
    """min(max(x, low), high)."""
    return Piece(
        lambda x: aten.hardtanh(x, low, high),
        lambda x: aten.hardtanh_(x, low, high),
        lambda delta, y: aten.hardtanh_backward(delta, y, low, high),
        lambda delta, y: _hardtanh_over(delta, y, low, high, grad_input=delta),
    )


# min(max(x + 3, 0), 6) / 6, which PyTorch refuses to differentiate twice
hardsigmoid = Piece(aten.hardsigmoid, aten.hardsigmoid_, lambda delta, y: aten.hardtanh_backward(delta, y, 0, 1) / 6)


def absolute(x):
    """|x|, of which the result does not tell the piece."""
    return piecewise(x, _ABSOLUTE)


_ABSOLUTE = Maps(lambda x: (x.abs(), x), lambda delta, x: delta * x.sign(), lambda t, x: t * x.sign())
