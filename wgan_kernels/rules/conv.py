"""Convolutions of 1, 2 and 3 dimensions, transposed or not: y = conv(x, w) + b.

x: [B, in, …]; w: [out, in/groups, …], transposed [in, out/groups, …]; b: [out]. The weight gradient is the backend's
own kernel for it; PyTorch's double backward convolves with the output gradient as a filter instead, as large as the
feature map (pytorch#22577).
"""

import functools

import torch
import torch.nn.functional as F

from .. import _layout
from . import _columns, _pairs, _pairs_few, _patches, _winograd, _winograd_same
from ._geometry import Geometry, size
from .bilinear import Maps, bilinear

_backward = torch.ops.aten.convolution_backward.default


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
    """Who serves a sweep over a convolution with kernels of its own, or None."""
    if w.dim() != 4:
        return None
    if x.dtype is torch.bfloat16:
        ways = _pairs, _pairs_few
    else:
        ways = (_winograd_same if how.stride == (1, 1) else _winograd,)
    return next((way for way in ways if way.serve(x, w, how, sweep)), None)


def _forward(x, w, b, how):
    if way := _way(x, w, how, "forward"):
        return way.forward(x, w, b, how)
    if _patches.serve(x, w, how):
        return _patches.forward(x, w, b, how)
    if not _columns.serve(x, w, how):
        return torch.convolution(x, w, b, *how)
    y = _layout.alike(x, _columns.forward(x, w, size(x.shape, w.shape, how), how))[1]
    return y if b is None else y + b.view(-1, 1, 1)


def _pullback(delta, w, x, how):
    if way := _way(x, w, how, "pullback"):
        return way.pullback(delta, w, x, how)
    to_few = how._replace(transposed=True)
    if not how.transposed and _columns.serve(delta, w, to_few):
        return _layout.alike(x, _columns.forward(delta, w, x.shape[2:], to_few))[1]
    return _native(x, delta, w, how, (True, False, False))[0]


# Elements of a kernel for one of the samples, from which on its gradient is not made in channels-last memory, where it
# would be copied twice. 256 channels of 8×8 to 512, 4×4: 16 samples (8) 4.8 and 3.6 ms, 64 (2) 14.5 and 13.1.
_LARGE = 2


def _weight_gradient(x, delta, w, how):
    """In the memory of w where that costs nothing. Of w itself nothing is read."""
    if way := _way(x, w, how, "weights"):
        return way.weight_gradient(x, delta, w, how)
    if _patches.serve(x, w, how):
        return _patches.weight_gradient(x, delta, w, how)
    format_ = _layout.memory_format(x)
    if format_ is not torch.contiguous_format and w.numel() >= _LARGE * x.numel():
        x, delta, format_ = x.contiguous(), delta.contiguous(), torch.contiguous_format
    if not w.is_contiguous(memory_format=format_):  # else PyTorch would copy it
        w = torch.empty_like(w, memory_format=format_)
    return _native(x, delta, w, how, (False, True, False))[1]


def _bias_gradient(delta, how):
    return delta.sum((0, *range(2, delta.dim())))


def _gradients(x, delta, w, how, asked):
    if _way(x, w, how, "pullback") or _way(x, w, how, "weights"):
        return (
            _pullback(delta, w, x, how) if asked[0] else None,
            _weight_gradient(x, delta, w, how) if asked[1] else None,
            _bias_gradient(delta, how) if asked[2] else None,
        )
    x_asked, *others = asked
    if x_asked and not how.transposed and _columns.serve(delta, w, how._replace(transposed=True)):
        rest = _native(x, delta, w, how, (False, *others))[1:] if any(others) else (None, None)
        return _pullback(delta, w, x, how), *rest
    return _native(x, delta, w, how, asked)


def _native(x, delta, w, how, asked):
    """The backend's gradients with respect to x, w and b: those asked for, None for the others."""
    is_turned = not how.transposed and _columns.serve(x, w, how)
    if is_turned:
        w, how = _columns.transposed(w, how)
    bias = [delta.shape[1]] if asked[2] else None
    grads = [g if wanted else None for g, wanted in zip(_backward(delta, x, w, bias, *how, asked), asked, strict=True)]
    if is_turned and asked[1]:
        grads[1] = _columns.turn(grads[1])
    return grads


MAPS = Maps(_forward, _pullback, _weight_gradient, _bias_gradient, _gradients)
conv = bilinear(MAPS)
