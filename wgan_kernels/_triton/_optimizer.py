"""What the optimizers' kernels and launchers share."""

import torch
import triton
import triton.language as tl

from ._table import TYPES, is_one_run

# Elements of a program: eight in each of its 128 threads, of up to five lists at once: some 80 registers.
BLOCK = 1024


@triton.jit
def setting(value, dtype: tl.constexpr):
    """A number in the type arithmetic is done in for ``dtype``."""
    value = tl.full((), value, tl.float64)
    return value if dtype == tl.float64 else value.to(tl.float32)


@triton.jit
def number(ptr, otherwise):
    """What a tensor of one number holds, or else ``otherwise``; in float64."""
    return tl.full((), otherwise, tl.float64) if ptr is None else tl.load(ptr).to(tl.float64)


@triton.jit
def is_skipped(found_inf_ptr):
    """Whether a gradient scaler found an infinity: then nothing is written."""
    return number(found_inf_ptr, 0.0) != 0


@triton.jit
def gradient(grad, w, factor, weight_decay):
    """factor·∇L + weight_decay·w. Without decay w is not looked at: 0·inf would be NaN."""
    return factor * grad + tl.where(weight_decay == 0, 0.0, weight_decay * w)


@triton.jit
def divided(x, y):
    """x/y rounded to nearest; ``/`` is not in float32."""
    return x / y if x.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def root(x):
    """√x rounded to nearest; ``sqrt`` is not in float32."""
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)


def check(op, lists, steps, *scalars):
    """RuntimeError, before anything is launched, where a kernel cannot take these.

    lists: the parameters, their gradients and their states; steps: [] each; scalars: one number each, or None.
    """
    params = lists[0]
    if any(len(list_) != len(params) for list_ in (*lists, steps)):
        raise RuntimeError(f"{op}: lists of different lengths")
    device = params[0].device if params else None
    for i, (param, *others) in enumerate(zip(*lists, strict=True)):
        if not (
            param.device == device
            and param.dtype in TYPES
            and (param.is_contiguous() or is_one_run(param))
            and all(other.device == device and _is_like(param, other) for other in others)
        ):
            raise RuntimeError(
                f"{op}: tensor {i} must be without gaps in memory and on the device of the kernel, its gradient and "
                "states of its dtype, shape and strides"
            )
    for i, step in enumerate(steps):
        if not (step.dtype is torch.float32 and step.numel() == 1 and step.device == device):
            raise RuntimeError(f"{op}: step {i} must be one float32 on the device")
    for name, scalar in zip(("lr_tensor", "grad_scale", "found_inf"), scalars, strict=True):
        if scalar is not None and not (
            scalar.dtype in (torch.float32, torch.float64) and scalar.numel() == 1 and scalar.device == device
        ):
            raise RuntimeError(f"{op}: {name} must be one float32 or float64 on the device")


def _is_like(param, other):
    """Whether the two have as many elements of one dtype, in the same order, param having no gaps."""
    if other.dtype is not param.dtype or other.numel() != param.numel():
        return False
    if param.is_contiguous():
        return other.is_contiguous()
    if other.shape != param.shape:
        return False
    strides = zip(param.shape, param.stride(), other.stride(), strict=True)
    return all(size == 1 or stride == other_stride for size, stride, other_stride in strides)
