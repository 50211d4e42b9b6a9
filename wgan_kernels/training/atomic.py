"""A file is the old one or the new one, whole, at every moment: after a kill, a full disk or a power cut.

The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one atomic step; the
folder is flushed too, so that the name itself lasts.
"""

import os
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError


def write(path: Path, content: bytes | memoryview) -> None:
    """Replaces ``path`` by ``content``. Raises UsageError where the system refuses; the old file then stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


@contextmanager
def writing(path: Path):
    """Raises UsageError for an OSError of the block, which writes ``path``: no room, no permission, a broken disk."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror or error}); what was saved before is kept: "
            "make room, or mend the folder, and run it again, a training run with --resume"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files of writes that were killed."""
    for temporary in leftovers(folder):
        temporary.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".*.tmp"))


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself durable, where the system can open a folder (POSIX)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
