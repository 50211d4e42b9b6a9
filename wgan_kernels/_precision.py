"""The arithmetic that a step asks for by name."""

import contextlib

import torch

PRECISIONS = (None, "tf32", "bfloat16")


@contextlib.contextmanager
def in_precision(name, device):
    """What is run within has its matrix products and convolutions in that precision; None: in the caller's.

    "tf32": float32 rounded to 10 bits of mantissa on a GPU's tensor cores, as it is elsewhere. "bfloat16": autocast.
    """
    if name == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    elif name == "tf32":
        backends = torch.backends.cuda.matmul, torch.backends.cudnn
        before = [backend.allow_tf32 for backend in backends]
        try:
            for backend in backends:
                backend.allow_tf32 = True
            yield
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed
    else:
        yield


def wide(scores):
    """Scores for a loss: autocast's own are too narrow for differences of means."""
    return scores.float() if torch.is_autocast_enabled(scores.device.type) else scores
