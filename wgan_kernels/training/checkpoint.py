"""Checkpoints: one file per saved iteration, ``000400.pt``, of which the newest few are kept.

A file is what ``torch.save`` writes, and after it MARK and the SHA-256 of all that precedes: one file, replaced in one
atomic step, so that a checkpoint and its checksum cannot disagree. ``torch.load`` reads it as it is.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import atomic
from .errors import UsageError

FORMAT = 3
MARK = b"\nsha256 of all before: "
TRAILER = len(MARK) + hashlib.sha256().digest_size


class Damaged(Exception):
    """A file is not, byte for byte, what was saved. The message names it and says why."""


def save(folder: Path, iteration: int, state: Mapping[str, Any], keep: int) -> Path:
    """Writes the checkpoint of ``iteration`` and deletes all but the ``keep`` newest. Raises UsageError (no room, …).

    Until the new one is complete nothing is deleted.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    checksum = hashlib.sha256(buffer.getbuffer()).digest()
    buffer.write(MARK + checksum)
    path = folder / f"{iteration:06d}.pt"
    atomic.write(path, buffer.getbuffer())
    for old in saved(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def saved(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first, damaged ones among them."""
    return sorted((path for path in folder.glob("*.pt") if path.stem.isdecimal()), key=_iteration)


def newest(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The newest whole state in ``folder``, and a sentence on each damaged file that was passed over.

    Raises UsageError where there is none.
    """
    damaged = []
    for path in reversed(saved(folder)):
        try:
            return load(path), damaged
        except Damaged as error:
            damaged.append(str(error))
    if damaged:
        raise UsageError(f"{'; '.join(damaged)}. No checkpoint is left: restore a copy, or start a new run")
    raise UsageError(f"--resume: there is no checkpoint in {folder}; leave --resume out to start a new run")


def load(path: Path) -> dict[str, Any]:
    """The state saved at ``path``, on the CPU: tensors and plain values only, never a pickle that runs code.

    Raises Damaged, or UsageError for a whole file of another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror or error})") from error
    body, trailer = content[:-TRAILER], content[-TRAILER:]
    if not trailer.startswith(MARK):
        raise Damaged(f"{path} is damaged (no checksum at its end: cut off, or no checkpoint)")
    if trailer != MARK + hashlib.sha256(body).digest():
        raise Damaged(f"{path} is damaged (its checksum does not match)")
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise Damaged(
            f"{path} cannot be read safely ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is not a checkpoint of format {FORMAT}; it was written by another version")
    return state


def set_aside(folder: Path, iteration: int) -> None:
    """Renames what is newer than ``iteration``, the files that ``newest`` passed over, to ``….pt.damaged``."""
    for path in saved(folder):
        if _iteration(path) > iteration:
            with atomic.writing(path):
                path.rename(path.with_name(f"{path.name}.damaged"))


def _iteration(path: Path) -> int:
    return int(path.stem)
