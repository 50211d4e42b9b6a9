"""Where a run trains: the device of the machine, and of several processes each one's own; and in which precision."""

import torch

from . import distributed
from .errors import UsageError

KINDS = ("cpu", "cuda")


def resolve_device(name: str) -> str:
    """The device's name with "auto" decided. Raises UsageError where nothing trains on it, or this machine has none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in KINDS:
            raise UsageError(f"--device {name}: training runs on cpu and cuda only; use --device cpu, cuda or auto")
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise UsageError(f"--device {name}: cannot be used here ({reason}); use --device cpu or auto") from error
    return name


def fastest_precision(device: str, critic_batches: str) -> str:
    """What "auto" stands for. Where a CPU lacks the instructions, bfloat16 is emulated and slower than float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.11
    has_products = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if device == "cpu" and has_products and critic_batches == "joint" else "float32"


def take_own_gpu(device: str) -> None:
    """Of several processes, each makes the GPU of its own the one that "cuda" stands for. Raises UsageError."""
    kind, _, number = device.partition(":")
    if distributed.size() == 1 or kind == "cpu":
        return
    if number:
        raise UsageError(f"--device {device}: each process has a GPU of its own; leave the number out: --device {kind}")
    if distributed.local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"--nproc-per-node: this machine has {torch.cuda.device_count()} GPUs; start as many processes"
        )
    torch.cuda.set_device(distributed.local_rank())
