"""What the examples of second derivatives share: flags, and updates that take turns with plain PyTorch.

Both ways give the same gradients, so training goes on as if there were one; since they meet the same parameters, the
same data and the same machine, their times can be compared.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import torch
from script import check_flags, progress
from torch import nn

import wgan_kernels as wk
from wgan_kernels.training._optional import optional
from wgan_kernels.training.errors import UsageError

WAYS = {"wgan_kernels": wk, "PyTorch": wk.reference}
WARM = 6  # first updates, whose time does not count


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of every example."""

    out: Path
    """The figure to write (PNG); a file of that name is replaced."""
    steps: int
    """Updates, every other one by plain PyTorch."""
    batch_size: int
    """Samples in an update."""
    width: int
    """Of the hidden layers."""
    lr: float
    """Of Adam."""
    seed: int = 0
    """Of weights and samples."""
    threads: int = 1
    """Of PyTorch: networks of this size gain little by more, and lose much where others use the machine, too."""

    def check(self) -> None:
        """Raises UsageError on a value out of range."""
        check_flags(self, {"steps": WARM + 4, "batch_size": 2, "width": 1, "threads": 1})
        if not 0 < self.lr < 1:
            raise UsageError(f"--lr {self.lr}: expected a number between 0 and 1")


def perceptron(*widths: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers = [layer for wide, wider in pairwise(widths) for layer in (nn.Linear(wide, wider), activation())]
    return nn.Sequential(*layers[:-1])


def train(update: Callable[[ModuleType], float], steps: int, label: str) -> tuple[list[float], dict[str, list[float]]]:
    """Calls ``update(wk)`` and ``update(wk.reference)`` in turn, ``steps`` times in all, under a progress bar.

    Args:
        update: one update by that module's functions; returns the figure to watch.
        steps: how many.
        label: what the figure is.

    Returns:
        The figures, and for each way the seconds of its updates.
    """
    figures, seconds, ways = [], {way: [] for way in WAYS}, list(WAYS)
    with progress(steps) as advance:
        for index in range(steps):
            way = ways[index % 2]
            started = time.perf_counter()
            figures.append(update(WAYS[way]))
            if index >= WARM:
                seconds[way].append(time.perf_counter() - started)
            advance(f"{label} {figures[-1]:.3f}")
    return figures, seconds


def compared(seconds: Mapping[str, Sequence[float]]) -> str:
    """Both ways' times in a sentence: median and quartiles of an update, and how PyTorch's median compares."""
    parts, medians = [], []
    for way, found in seconds.items():
        low, median, high = statistics.quantiles(found, n=4)
        medians.append(median)
        parts.append(f"{way} {median * 1e3:.2f} ms [{low * 1e3:.2f} – {high * 1e3:.2f}]")
    ours, theirs = medians
    threads = torch.get_num_threads()
    where = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"an update, in turns, on {where}: {', '.join(parts)}; PyTorch ÷ wgan_kernels {theirs / ours:.2f}"


def figure(columns: int):
    """(pyplot, figure, axes) of square panels side by side."""
    optional("matplotlib", "writing the figure").use("Agg")
    pyplot = optional("matplotlib.pyplot", "writing the figure")
    drawn, axes = pyplot.subplots(1, columns, figsize=(4.6 * columns, 4.6), constrained_layout=True)
    return pyplot, drawn, axes
