"""Runs the documents' experiments and fills the gallery with what they measured.

    python examples/gallery.py                      all of them; ``make gallery`` does this
    python examples/gallery.py --only earth_mover   some

Each writes ``docs/gallery/<name>.png`` and beside it ``<name>.json``, the settings and every number measured. What
``docs/gallery.md`` has between ``<!-- <name> -->`` and ``<!-- /<name> -->`` is written from that record. Needs the
``gallery`` extra.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import script

from wgan_kernels.training import atomic
from wgan_kernels.training._optional import optional
from wgan_kernels.training.errors import UsageError

EXAMPLES = Path(__file__).parent
Name = Literal[
    "earth_mover",
    "parallel_lines",
    "divergences",
    "clipping",
    "mode_collapse",
    "quality_curve",
    "wgan_and_wgan_gp",
    "one_digit",
]


def make(name: str, folder: Path) -> str:
    """Runs that experiment in a process of its own; returns what the gallery says of it.

    Args:
        name: of the script.
        folder: of the figure and the record.

    Raises:
        UsageError: the script failed; its own message has been printed.
    """
    started = time.perf_counter()
    out = folder / f"{name}.png"
    if subprocess.run([sys.executable, EXAMPLES / f"{name}.py", "--out", out]).returncode:
        raise UsageError(f"{name}: its script failed, see above; the gallery says of it what it said before")
    return entry(name, json.loads(out.with_suffix(".json").read_text()), folder, time.perf_counter() - started)


def entry(name: str, record: dict, folder: Path, seconds: float) -> str:
    """What was measured, the figure, its film if there is one, and the command with its time, as Markdown."""
    title = name.replace("_", " ")
    pictures = {f"{name}.png": title, f"{name}.gif": f"{title}, film"}
    parts = [
        "**Measured.** " + " ".join(record["sentences"]),
        *(f"![{text}]({folder.name}/{file})" for file, text in pictures.items() if (folder / file).is_file()),
        f"`python examples/{name}.py`: {seconds:.0f} s; {record['where']}.",
    ]
    return "\n\n".join(parts)


def fill(page: str, name: str, text: str) -> str:
    """The page with ``text`` between the markers of ``name``. Raises UsageError where they are missing."""
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    filled, found = between.subn(lambda markers: f"{markers[1]}{text}\n{markers[2]}", page)
    if found != 1:
        raise UsageError(f"the gallery has {found} places for {name}: expected one <!-- {name} --> … <!-- /{name} -->")
    return filled


def gallery(only: tuple[Name, ...] = get_args(Name), page: Path = EXAMPLES.parent / "docs/gallery.md") -> None:
    """Runs the documents' experiments and fills the gallery with what they measured.

    Args:
        only: the experiments to run.
        page: the gallery; figures and records go into the folder of its name, beside it.
    """
    if not page.is_file():
        raise UsageError(f"--page {page}: there is no such file")
    for name in only:
        fill(page.read_text(), name, "")  # raises before anything runs
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name in only:
        print(name)
        text = make(name, folder)
        atomic.write(page, fill(page.read_text(), name, text).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 an experiment failed, or a file is missing, 130 stopped."""
    return script.status(
        lambda: optional("tyro", "the command line").cli(gallery, args=arguments),
        stopped="stopped; what the gallery says of the experiments before stays",
    )


if __name__ == "__main__":
    sys.exit(main())
