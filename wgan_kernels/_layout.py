"""Memory formats. A leaf takes [B, …] tensors whose samples are runs of memory, in one order for all of them."""

import functools

import torch

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def alike(*tensors):
    """The tensors, all in the memory format of the first: channels-last where it is, contiguous otherwise.

    Copies only what is not in that format already. Differentiable.
    """
    if all(tensor.is_contiguous() for tensor in tensors):  # in half the time of copying nothing
        return tensors
    format_ = memory_format(tensors[0])
    return tuple(tensor.contiguous(memory_format=format_) for tensor in tensors)


def memory_format(tensor):
    """Channels-last where it is that and not contiguous, contiguous otherwise."""
    channels_last = None if tensor.is_contiguous() else _CHANNELS_LAST.get(tensor.dim())
    is_last = channels_last is not None and tensor.is_contiguous(memory_format=channels_last)
    return channels_last if is_last else torch.contiguous_format


def channels_last(images):
    """[B, C, H, W] in channels-last memory. Differentiable.

    Of one channel an image is in both formats, and a convolution takes the one that the strides tell.
    """
    if images.shape[1] == 1:
        return images.squeeze(1).contiguous().unsqueeze(3).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


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
