"""y = x wᵀ + b. x: [..., in], w: [out, in], b: [out]."""

import torch.nn.functional as F

from .bilinear import Maps, bilinear


def _rows(x):
    return x if x.dim() == 2 else x.flatten(0, -2)


MAPS = Maps(
    forward=lambda x, w, b, how: F.linear(x, w, b),
    pullback=lambda delta, w, x, how: delta @ w,
    weight_gradient=lambda x, delta, w, how: _rows(delta).t() @ _rows(x),
    bias_gradient=lambda delta, how: _rows(delta).sum(0),
)
_matrices = bilinear(MAPS)


def linear(x, w, b):
    """The layer, with one reshape around it: a Function whose result were a view could not be followed in place."""
    if x.dim() == 2:
        return _matrices(x, w, b, None)
    return _matrices(x.flatten(0, -2), w, b, None).unflatten(0, x.shape[:-1])
