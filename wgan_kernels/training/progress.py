"""What the terminal shows while training: a rich progress bar, or a plain line now and then where there is none."""

import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager

from ._optional import optional

PLAIN_EVERY = 10.0  # seconds
SHOWN = {"wasserstein": "W", "penalty": "penalty", "gradient_norm": "‖∇‖"}


class PlainProgress:
    """One line every ten seconds, for logs and pipes."""

    def __init__(self, start: int, total: int):
        self.start, self.total = start, total
        self.started = time.monotonic()
        self.printed = self.started - PLAIN_EVERY

    def update(self, iteration: int, row: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self.printed < PLAIN_EVERY and iteration < self.total:
            return
        self.printed = now
        rate = (iteration - self.start) / max(now - self.started, 1e-9)
        left = (self.total - iteration) / rate
        print(f"{iteration}/{self.total}  {rate:.1f} it/s  {left:.0f} s left  {_figures(row)}", flush=True)


class RichProgress:
    """A live bar with the rate, the time left and the latest figures."""

    def __init__(self, bar, start: int, total: int):
        self.bar, self.start = bar, start
        self.started = time.monotonic()
        self.task = bar.add_task("training", total=total, completed=start, rate="", figures="")

    def update(self, iteration: int, row: Mapping[str, float]) -> None:
        rate = (iteration - self.start) / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(self.task, completed=iteration, rate=f"{rate:.1f} it/s", figures=_figures(row))


@contextmanager
def progress(start: int, total: int):
    """The display that suits the terminal, for iterations ``start`` to ``total``."""
    if not sys.stdout.isatty():
        yield PlainProgress(start, total)
        return
    rich = optional("rich.progress", "the progress bar")
    columns = (
        rich.TextColumn("{task.completed}/{task.total}"),
        rich.BarColumn(bar_width=24),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[figures]}"),
    )
    with rich.Progress(*columns) as bar:
        yield RichProgress(bar, start, total)


def _figures(row: Mapping[str, float]) -> str:
    return "  ".join(f"{label} {row[name]:.3f}" for name, label in SHOWN.items() if name in row)
