"""Convolutions of 1, 2 and 3 dimensions, transposed or not: y = conv(x, w) + b.

x: [B, in, …]; w: [out, in/groups, …], transposed [in, out/groups, …]; b: [out]. The weight gradient is the backend's
own kernel for it; PyTorch's double backward convolves with the output gradient as a filter instead, as large as the
feature map (pytorch#22577).
"""

import functools

import torch
import torch.nn.functional as F

from .. import _dispatch
from . import _aten, _columns, _pairs, _pairs_few, _patches, _winograd, _winograd_same
from ._geometry import Geometry
from .bilinear import Maps, bilinear


def geometry(dims, transposed, settings, named):
    """(Geometry, whether the padding is "same") of what follows the bias in a call of torch.conv…, in whatever form."""
    settings = (*settings, *named.values())
    if torch.compiler.is_compiling():  # which warns of what is kept
        return _geometry.__wrapped__(dims, transposed, settings, tuple(named))
    try:
        return _geometry(dims, transposed, settings, tuple(named))
    except TypeError:  # a list among them
        hashable = (tuple(value) if isinstance(value, list) else value for value in settings)
        return _geometry(dims, transposed, tuple(hashable), tuple(named))


@functools.lru_cache(maxsize=1024)
def _geometry(dims, transposed, settings, named):
    """Kept, since it takes a third of the Python of a call. named: whose settings the last ones are."""
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    if not transposed:
        names = ("stride", "padding", "dilation", "groups")
    names = (*names[: len(settings) - len(named)], *named)
    how = dict(_DEFAULTS, **dict(zip(names, settings, strict=True)))
    is_same = how["padding"] == "same"
    if is_same or how["padding"] == "valid":
        how["padding"] = 0
    for name in ("stride", "padding", "dilation", "output_padding"):
        value = (how[name],) if isinstance(how[name], int) else tuple(how[name])
        how[name] = value * dims if len(value) == 1 else value
    return Geometry(transposed=transposed, **how), is_same


_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "groups": 1}


def same(x, w, dilation):
    """(x, padding) for as many pixels out as in at stride 1; of an odd number that is missing x gets one at its end."""
    missing = [d * (size - 1) for d, size in zip(dilation, w.shape[2:], strict=True)]
    if any(m % 2 for m in missing):
        x = F.pad(x, [side for m in reversed(missing) for side in (0, m % 2)])
    return x, tuple(m // 2 for m in missing)


def _way(x, w, how, sweep):
    """Who serves a sweep, "forward", "pullback" or "weights", over a convolution of tensors like these.

    Kept, since asking all takes as long as a convolution of one small image.
    """
    if not x.is_cpu:
        return _aten
    if torch.compiler.is_compiling():  # which warns of what is kept
        return _asked(x, w, how, sweep)
    vectors = _dispatch.takes_vectors(x.device)
    kind = sweep, how, x.shape, x.stride(), x.dtype, w.shape, w.dtype, vectors
    way = _ways.get(kind)
    if way is None:
        if len(_ways) >= _MOST:
            _ways.clear()
        way = _ways[kind] = _asked(x, w, how, sweep)
    return way


_ways, _MOST = {}, 4096
_PAIRS = _pairs, _pairs_few
_OTHERS = _winograd_same, _winograd, _patches, _columns


def _asked(x, w, how, sweep):
    ways = () if w.dim() != 4 else (*_PAIRS, _patches) if x.dtype is torch.bfloat16 else _OTHERS
    return next((way for way in ways if way.serve(x, w, how, sweep)), _aten)


def _forward(x, w, b, how):
    return _way(x, w, how, "forward").forward(x, w, b, how)


def _pullback(delta, w, x, how):
    return _way(x, w, how, "pullback").pullback(delta, w, x, how)


def _weight_gradient(x, delta, w, how):
    """In the memory of w where that costs nothing. Of w itself nothing is read."""
    return _way(x, w, how, "weights").weight_gradient(x, delta, w, how)


def _bias_gradient(delta, how):
    return delta.sum((0, *range(2, delta.dim())))


def _gradients(x, delta, w, how, asked):
    sweeps = ("pullback", "weights")
    ways = [_way(x, w, how, sweep) for sweep, wanted in zip(sweeps, asked[:2], strict=True) if wanted]
    if all(way is _aten for way in ways):
        return _aten.gradients(x, delta, w, how, asked)
    return (
        _pullback(delta, w, x, how) if asked[0] else None,
        _weight_gradient(x, delta, w, how) if asked[1] else None,
        _bias_gradient(delta, how) if asked[2] else None,
    )


MAPS = Maps(_forward, _pullback, _weight_gradient, _bias_gradient, _gradients)
conv = bilinear(MAPS)
