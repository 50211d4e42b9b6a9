"""Argument errors, raised before anything is computed. Each names the argument, what was expected and what came."""

import math
import numbers
import sys

import torch

DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


def floating(name, tensor):
    """A dense tensor of one of the four dtypes."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        _subclass(name, tensor)
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name}: expected float64, float32, float16 or bfloat16, got {_dtype(tensor)}")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {tensor.layout}")


def _subclass(name, tensor):
    """A subclass, of whatever kind but one: a DTensor is a part of a tensor, and its kernels would need the rest."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    distributed = sys.modules.get("torch.distributed.tensor")  # where it was never imported there is no DTensor
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        raise TypeError(f"{name}: expected a plain tensor, got a DTensor; pass .to_local(), or .full_tensor()")


def unsharded(name, module):
    """Not under FSDP, which frees parameters after a pass that the double backward needs."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not isinstance(module, torch.nn.Module):
        return
    if any(isinstance(part, (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)) for part in module.modules()):
        raise RuntimeError(
            f"{name}: is sharded by FSDP, which cannot differentiate twice (pytorch#172543); "
            "use DistributedDataParallel, or average the gradients of whole critics"
        )


def batched(name, tensor):
    """[B, …]."""
    if tensor.dim() == 0:
        raise ValueError(f"{name}: expected a batch [B, …], got a 0-d tensor")


def filled(name, tensor):
    """With a sample at least: a mean over none is NaN."""
    if tensor.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one sample, got shape {tuple(tensor.shape)}")


def scores(returned):
    """What a critic has returned: a tensor. Returns it."""
    if not isinstance(returned, torch.Tensor):
        raise TypeError(f"critic: expected it to return a tensor of scores, got {type(returned).__name__}")
    return returned


def same_device(name, tensor, other_name, other):
    if tensor.device != other.device:
        raise RuntimeError(f"{name} is on {tensor.device}, {other_name} on {other.device}: move one of them")


def same_shape(name, tensor, other_name, other):
    if tensor.shape != other.shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, {other_name} {tuple(other.shape)}: expected the same"
        )


def per_sample(name, tensor, batch):
    """[B] or [B, 1, …] for a batch of that size."""
    if tensor.dim() == 0 or tensor.shape[0] != batch or tensor.numel() != batch:
        raise ValueError(
            f"{name}: expected one value per sample, shape [{batch}] or [{batch}, 1, …], got {tuple(tensor.shape)}"
        )


def condition(tensors, name, samples):
    """With a row for each sample, all of them."""
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"condition {i}: expected a tensor, got {type(tensor).__name__}")
        same_device(f"condition {i}", tensor, name, samples)
        if tensor.shape[:1] != samples.shape[:1]:
            raise ValueError(
                f"condition {i}: expected a row for each of {len(samples)} samples, got shape {tuple(tensor.shape)}"
            )


def scalar(name, tensor):
    """One element."""
    if tensor.numel() != 1:
        raise ValueError(f"{name}: expected a scalar, got shape {tuple(tensor.shape)}")


def number(name, value):
    """A real number as a float; NaN refused, and what a float cannot hold."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
        if isinstance(value, torch.Tensor):
            raise TypeError(f"{name}: expected a number, got a tensor; pass {name}.item()")
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if type(value) is not float and sys.float_info.max < abs(value) < math.inf:
        raise ValueError(f"{name} is beyond a float's range, ±1.8e308: pass a smaller number, or math.inf")
    if math.isnan(value):
        raise ValueError(f"{name} is NaN: expected a number")
    return float(value)


def flag(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")


def one_of(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(map(repr, choices))}")


def generator(value, device):
    if value is None:
        return
    if not isinstance(value, torch.Generator):
        raise TypeError(f"generator: expected a torch.Generator or None, got {type(value).__name__}")
    if value.device.type != device.type:
        raise RuntimeError(f"generator is on {value.device}, the samples on {device}: make one on that device")


def _dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")
