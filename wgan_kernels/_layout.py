"""Memory formats. A leaf takes [B, …] tensors whose samples are runs of memory, in one order for all of them."""

import functools

import torch

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def alike(*tensors):
    """The tensors, all in the memory format of the first: channels-last where it is, contiguous otherwise.

    Copies only what is not in that format already. Differentiable.
    """
    first = tensors[0]
    format_ = torch.contiguous_format
    if not first.is_contiguous():
        channels_last = _CHANNELS_LAST.get(first.dim())
        if channels_last is not None and first.is_contiguous(memory_format=channels_last):
            format_ = channels_last
    return tuple(tensor.contiguous(memory_format=format_) for tensor in tensors)


def promoted(*tensors):
    """The tensors, all in the widest dtype among them; None stays None. Differentiable.

    Where nothing changes nothing is called: three ``.to`` would cost a small kernel's time.
    """
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    if len(dtypes) == 1:
        return tensors
    dtype = functools.reduce(torch.promote_types, dtypes)
    return tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)


def compute_dtype(dtype):
    """The dtype arithmetic is done in: float32 for the half types, the dtype itself otherwise."""
    return torch.float64 if dtype is torch.float64 else torch.float32
