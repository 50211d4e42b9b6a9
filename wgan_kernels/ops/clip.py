"""w ← clip(w, low, high) for a whole list of parameters."""

from typing import overload

import torch
from torch import nn

from .. import _checks, _dispatch, _library, _native, reference

_library.define(
    "clip_(Tensor(a!)[] params, float low, float high) -> ()", fake=lambda params, low, high: None, stem="clip"
)


@overload
def clip_(params, bound: float) -> None: ...
@overload
def clip_(params, low: float, high: float) -> None: ...
def clip_(params, *bounds, bound=None, low=None, high=None):
    """Clamps every tensor into [−bound, bound], or [low, high], in place and without gradients.

    ::

        w ← min(max(w, low), high)    for every element w of every tensor

    Replaces ``for p in critic.parameters(): p.data.clamp_(-c, c)``. It pays from two tensors on: all tensors of a
    device and dtype are clamped by one launch, in one pass over memory.

    Not recorded by autograd; the tensors' version counters advance, so that a backward pass through values that were
    clamped away raises instead of being wrong.

    Args:
        params: a ``Module`` (its parameters), an iterable of tensors, or one tensor; any shapes, strides, dtypes and
            devices. An empty one is a no-op.
        bound: c ≥ 0, in the units of the weights. In the tensor's own dtype, as with ``torch.clamp_``.
        low, high: the two ends, low ≤ high; both, and no bound beside them.

    As ``torch.clamp_``: NaN stays NaN, ±inf is clamped.

    Raises:
        TypeError: params holds something that is not a dense floating-point tensor; a bound is not a number; neither
            bound alone nor low and high are given.
        ValueError: bound is negative, a bound is NaN or beyond float's range, or low > high.
        RuntimeError: a tensor's elements share memory (``expand``), or the backend asked for cannot run.
        Nothing is written when it raises.

    Source: Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", algorithm 1, line 7.
    """
    low, high = _interval(bounds, bound, low, high)
    tensors = _tensors(params)
    if not tensors:
        return
    if torch.compiler.is_compiling():
        _clip_groups(tensors, low, high)
    elif not _clip_at_once(tensors, low, high):
        _check(tensors)
        _clip_groups(tensors, low, high)
        torch.autograd.graph.increment_version(tensors)


def _clip_at_once(tensors, low, high):
    """The common case, a list of one device's tensors, at little or no cost per tensor in Python. False: nothing done.

    The kernel looks at every tensor before it writes into the first, so what it refuses can be looked into calmly.
    """
    first = tensors[0]
    if not isinstance(first, torch.Tensor):
        return False
    backend, _ = _dispatch.choose("clip", first.device)
    if backend not in ("cpp", "cuda"):
        return False
    native, is_here = (_native.cpu, "is_cpu") if backend == "cpp" else (_native.cuda, "is_cuda")
    if _dispatch.is_intercepted() or not native.clip_list(tensors, low, high):
        if not all(isinstance(tensor, torch.Tensor) and getattr(tensor, is_here) for tensor in tensors):
            return False
        try:
            with torch.no_grad():
                _library.leaves(backend).clip_(tensors, low, high)
        except (TypeError, RuntimeError):
            return False
    torch.autograd.graph.increment_version(tensors)
    return True


def _clip_groups(tensors, low, high):
    groups = {}
    for tensor in tensors:
        # −w where w is meant, as in z.conj().imag, which only torch's own operators heed, and no compiler traces.
        negated = not torch.compiler.is_compiling() and tensor.is_neg()
        groups.setdefault((tensor.device, negated), []).append(tensor)
    backends = [_dispatch.choose("clip", device)[0] for device, _ in groups]
    for backend, ((_, negated), group) in zip(backends, groups.items(), strict=True):
        if backend == "reference" or negated:
            reference.clip_(group, low, high)
        else:
            with torch.no_grad():
                _library.leaves(backend).clip_(group, low, high)


def _interval(bounds, bound, low, high):
    """The two ends; ``bounds`` are those without a name, a lone one being low where high has its name."""
    if len(bounds) == 2 and bound is low is high is None:
        low, high = bounds
    elif len(bounds) == 1 and bound is low is None:
        bound, low = (bounds[0], None) if high is None else (None, bounds[0])
    elif bounds:
        raise TypeError("clip_: expected a bound, or low and high, each once; leave out the others")
    if bound is low is high is None:
        raise TypeError("clip_: expected a bound, or low and high")
    if bound is not None:
        if low is not None or high is not None:
            raise TypeError("bound: expected alone, got low or high beside it; for two ends pass low and high")
        bound = _checks.number("bound", bound)
        if bound < 0:
            raise ValueError(f"bound is {bound}: expected ≥ 0; for two different ends pass low and high")
        return -bound, bound
    for name, end in (("low", low), ("high", high)):
        if end is None:
            raise TypeError(f"{name}: missing beside the other end; pass both (±math.inf: open), or a bound alone")
    low, high = _checks.number("low", low), _checks.number("high", high)
    if low > high:
        raise ValueError(f"low is {low}, high {high}: expected low ≤ high")
    return low, high


def _tensors(params):
    if isinstance(params, list):
        return params
    if isinstance(params, torch.Tensor):
        return [params]
    if isinstance(params, nn.Module):
        return list(params.parameters())
    try:
        return list(params)
    except TypeError:
        raise TypeError(
            f"params: expected a Module, an iterable of tensors or a tensor, got {type(params).__name__}"
        ) from None


def _check(tensors):
    for i, tensor in enumerate(tensors):
        _checks.floating(f"params[{i}]", tensor)
        if any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
            raise RuntimeError(f"params[{i}]: elements share memory (an expanded tensor); clone it first")
