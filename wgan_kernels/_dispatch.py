"""The choice of a backend, and its reason: one place, one default per (op, device)."""

import contextlib
import functools
import importlib.util
import os
import threading
from typing import NamedTuple

import torch

from . import _native

_OPS = ("clip", "interpolate", "norm_penalty", "wasserstein", "layer_norm", "rmsprop", "adam")
# What `auto` takes, best first, before the reference, which runs everywhere. An explicit request may name any.
_PREFERENCE = {"cpu": ("cpp",), "cuda": ("cuda", "triton")}
_BACKENDS = ("reference", "cpp", "cuda", "triton")

# What is there stays the same for as long as the process lives.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class _Request(threading.local):
    """What this thread asks for. Not a ContextVar, which torch.compile cannot trace before torch 2.15."""

    backend = os.environ.get("WGAN_KERNELS_BACKEND") or "auto"  # set to nothing is unset


_request = _Request()


@contextlib.contextmanager
def use_backend(name):
    """Asks for one backend within a ``with`` block or a decorated function, in this thread.

    Args:
        name: ``"reference"`` (plain PyTorch), ``"cpp"`` (C++ on the CPU), ``"cuda"`` (C++ on CUDA), ``"triton"``, or
            ``"auto"``, the default, which takes the best that can run. ``WGAN_KERNELS_BACKEND`` sets it for a process.

    Raises:
        ValueError: for any other name, at once.
        RuntimeError: at a call within the block that the backend cannot serve, with the reason.
    """
    _check_name(name, "use_backend")
    before, _request.backend = _request.backend, name
    try:
        yield
    finally:
        _request.backend = before


def requested():
    """The backend that this thread asks for, "auto" if none."""
    return _request.backend


def choose(op, device):
    """(backend, reason) for an op's stem on a ``torch.device``.

    All backends take the same dtypes, so the choice needs none. Plain lookups only: ``torch.compile`` traces it, and
    keeps the choice that it found.
    """
    requested, device = _request.backend, device.type
    _check_name(requested, "WGAN_KERNELS_BACKEND")
    if requested != "auto":
        why_not = _why_not(requested, device)
        if why_not:
            raise RuntimeError(f"{op}: backend {requested!r} was asked for and cannot run on {device}: {why_not}")
        return requested, "asked for"
    reason = f"the default on {device}"
    for backend in _PREFERENCE.get(device, ()):
        why_not = _why_not(backend, device)
        if why_not is None:
            return backend, reason
        reason = f"{backend}: {why_not}"
    return "reference", reason


def takes_compiled(device):
    """Whether kernels that only the compiled part has are to run: where others have none, nothing is refused."""
    return _request.backend in ("auto", "cpp") and _why_not("cpp", device.type) is None


def takes_vectors(device):
    """Whether kernels are to run that are written for vectors of AVX-512 and AVX2; they run anywhere."""
    return has_vectors() and takes_compiled(device)


@functools.cache
def has_vectors():
    """Whether kernels that are written for the vectors of AVX-512 and AVX2 are fast here."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def is_intercepted():
    """Whether someone wants to see operators: a compiler, a dispatch mode or a transform of torch.func."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def _check_name(name, source):
    if name != "auto" and name not in _BACKENDS:
        raise ValueError(f"{source}: backend is {name!r}, expected one of {', '.join(map(repr, ('auto', *_BACKENDS)))}")


def _why_not(backend, device):
    """None where the backend can run on this kind of device, else the reason. Every backend has every op."""
    if backend == "reference":
        return None
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active() and _is_batching():
        return "kernels have no rule for torch.vmap"
    if backend == "triton":
        return _why_not_triton(device)
    key = {"cpp": "cpu", "cuda": "cuda"}[backend]
    if device != key:
        return f"its kernels run on {key}"
    return _native.why_not[key]


def _is_batching():
    """Whether a torch.vmap is under way, at any depth of torch.func's transforms."""
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Vmap for level in levels)


def _why_not_triton(device):
    if not _HAS_TRITON:
        return "Triton is not installed"
    if device == "cuda":
        return None
    if device == "cpu" and _INTERPRETED:
        return None
    return "its kernels run on cuda, and on cpu only in Triton's interpreter (TRITON_INTERPRET=1)"


class Backend(NamedTuple):
    """One row of ``backends()``."""

    chosen: str
    available: tuple[str, ...]
    why_not: dict[str, str]


class Backends(dict):
    """{(op, device): Backend}, printed as a table."""

    def __str__(self):
        lines = [f"{'op':<13} {'device':<7} {'chosen':<10} available"]
        for (op, device), row in self.items():
            lines.append(f"{op:<13} {device:<7} {row.chosen:<10} {', '.join(row.available)}")
        reasons = {
            f"{name} on {device}: {why}" for (_, device), row in self.items() for name, why in row.why_not.items()
        }
        return "\n".join([*lines, "", "not available:", *(f"  {reason}" for reason in sorted(reasons))])

    __repr__ = __str__


def backends():
    """What runs where: a table op × device → (chosen, available, why_not).

    Returns:
        A dict from ``(op, device)``, ``device`` being ``"cpu"`` or ``"cuda"``, to a named tuple of the backend that
        ``auto`` or the current request takes, all that can run, and the reason for each that cannot. Prints as a table.
    """
    table = Backends()
    for op in _OPS:
        for device in _PREFERENCE:
            why_not = {name: why for name in _BACKENDS if (why := _why_not(name, device))}
            if device == "cuda" and not torch.cuda.is_available():
                why_not = dict.fromkeys(_BACKENDS, "no CUDA device is present")
            try:
                chosen = "none" if len(why_not) == len(_BACKENDS) else choose(op, torch.device(device))[0]
            except RuntimeError:
                chosen = "none"
            available = tuple(name for name in _BACKENDS if name not in why_not)
            table[op, device] = Backend(chosen, available, why_not)
    return table
