"""A checkpoint on disk is always a whole one: the last that was written completely.

``torch.save`` writes in place, so a kill in the middle would leave half a file. Here the bytes go to a temporary file
in the same folder, are flushed to the disk, and take the old name in one atomic step.
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import UsageError

FORMAT = 1


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Replaces ``path`` by ``state`` atomically; an error or a kill before the end leaves the old file as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def load(path: Path) -> dict[str, Any]:
    """The state saved at ``path``, on the CPU: tensors and plain values only, never a pickle that runs code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UsageError(f"--resume: there is no checkpoint {path}; leave --resume out to start a new run") from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--resume: {path} is damaged or no checkpoint ({reason}); restore a copy or start anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"--resume: {path} is not a checkpoint of format {FORMAT}; it was written by another program")
    return state


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of saves that were killed."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself durable, where the system can open a folder (POSIX)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
