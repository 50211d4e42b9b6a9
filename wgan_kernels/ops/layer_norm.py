"""Rows of memory normalised by their own statistics, and the first two derivatives: ``rules/norm.py`` has the calculus.

x, delta, t: contiguous, of any shape, seen as [rows, width]; w, b: [sets·width], row i taking the set i mod ``sets``;
mean, rstd: [rows] in the compute type. Gradients of weights are [sets·width] in the compute type. What is not asked for
is [0].
"""

import torch

from .. import _dispatch, _layout, _library


def _fwd_fake(x, w, b, width, sets, centered, eps):
    return torch.empty_like(x), *(_stat(x, width) for _ in range(2))


def _bwd_fake(delta, x, w, mean, rstd, width, sets, centered, x_asked, weights_asked):
    weights = (_weights(x, width * sets * weights_asked) for _ in range(2))
    return torch.empty_like(x) if x_asked else x.new_empty(0), *weights


def _bwd_bwd_fake(t, delta, x, w, mean, rstd, width, sets, centered, delta_asked, x_asked, w_asked):
    rows = (torch.empty_like(x) if asked else x.new_empty(0) for asked in (delta_asked, x_asked))
    return *rows, _weights(x, width * sets * w_asked)


def _stat(x, width):
    return _weights(x, x.numel() // width if width else 0)


def _weights(x, count):
    return x.new_empty(count, dtype=_layout.compute_dtype(x.dtype))


_library.define(
    "layer_norm_fwd(Tensor x, Tensor? w, Tensor? b, int width, int sets, bool centered, float eps)"
    " -> (Tensor, Tensor, Tensor)",
    fake=_fwd_fake,
    stem="layer_norm",
)
_library.define(
    "layer_norm_bwd(Tensor delta, Tensor x, Tensor? w, Tensor mean, Tensor rstd, int width, int sets, bool centered,"
    " bool x_asked, bool weights_asked) -> (Tensor, Tensor, Tensor)",
    fake=_bwd_fake,
    stem="layer_norm",
)
_library.define(
    "layer_norm_bwd_bwd(Tensor t, Tensor delta, Tensor x, Tensor? w, Tensor mean, Tensor rstd, int width, int sets,"
    " bool centered, bool delta_asked, bool x_asked, bool w_asked) -> (Tensor, Tensor, Tensor)",
    fake=_bwd_bwd_fake,
    stem="layer_norm",
)


def leaves(device):
    """Where these operators are to be found for tensors on a device; None: the reference is to be taken."""
    backend, _ = _dispatch.choose("layer_norm", device)
    return None if backend == "reference" else _library.leaves(backend)
