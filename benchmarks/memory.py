"""How much memory a call holds at once."""

import contextlib
import gc
import os
import sys

import torch
from torch.profiler import ProfilerActivity, profile


@contextlib.contextmanager
def silent():
    """The profiler tells stderr that it starts and stops, and that it finds no GPU."""
    sys.stderr.flush()
    before = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def peak_bytes(run, inputs):
    """The most bytes of what ``run(*inputs)`` allocates that are alive at once, scratch space included."""
    device = next((x.device for x in inputs if isinstance(x, torch.Tensor)), torch.device("cpu"))
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(*inputs)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run(*inputs)
    changes = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        live += change.nbytes()
        most = max(most, live)
    return most
