"""What the scripts share that draw a figure: checks of their flags, a progress bar, the command line."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from wgan_kernels.training._optional import MissingPackage, optional
from wgan_kernels.training.errors import UsageError


def check_flags(options, least: Mapping[str, int]) -> None:
    """Raises UsageError where a whole number is less than its ``least``, or no figure can be written to ``out``."""
    for name, bound in least.items():
        if getattr(options, name) < bound:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} {getattr(options, name)}: expected a whole number of at least {bound}")
    folder = options.out.parent
    if options.out.suffix != ".png" or not folder.is_dir():
        raise UsageError(f"--out {options.out}: expected a .png file in a folder that is there")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {options.out}: {folder} cannot be written; choose another folder")


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar; the block calls its value ``total`` times, with what is going on."""
    rich = optional("rich.progress", "the progress bar")
    columns = (
        rich.TextColumn("{task.completed}/{task.total}"),
        rich.BarColumn(bar_width=24),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.description}"),
    )
    with rich.Progress(*columns) as bar:
        task = bar.add_task("", total=total)
        yield lambda label: bar.update(task, advance=1, description=label)


def main(options: type, run: Callable, description: str, arguments: Sequence[str] | None = None) -> int:
    """``run`` with the options of the command line. Returns the exit status."""

    def asked() -> None:
        options_asked = optional("tyro", "the command line").cli(options, args=arguments, description=description)
        options_asked.check()
        torch.set_num_threads(options_asked.threads)
        run(options_asked)

    return status(asked)


def status(run: Callable[[], None], stopped: str = "stopped") -> int:
    """Runs it. Returns the exit status: 0 done, 2 wrong arguments or something is missing, 130 stopped."""
    try:
        run()
    except (UsageError, MissingPackage) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    return 0
