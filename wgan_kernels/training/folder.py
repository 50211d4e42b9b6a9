"""The files of a run, and the rules about them.

config.yaml             the configuration, complete
metrics.jsonl           one JSON object per logged iteration; evaluations add fid, confidence, histogram
samples/*.png           10×10 grids from the same noise each time, named by iteration
checkpoints/*.pt        the whole state, named by iteration; the newest few
progress.gif            the grids in a row
curves.png              losses, estimate, slope, verdicts
generator.safetensors   the averaged generator's weights
critic.safetensors      the critic's weights
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from . import atomic, checkpoint
from .config import Config
from .errors import UsageError

try:
    import fcntl
except ImportError:  # not on Windows: there nobody keeps two runs apart
    fcntl = None


class RunFolder:
    """The paths of a run's files, and the rules about them: nothing that exists is overwritten."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.film = path / "progress.gif"
        self.curves = path / "curves.png"
        self.generator = path / "generator.safetensors"
        self.critic = path / "critic.safetensors"

    def check_new(self) -> None:
        """Raises UsageError unless the folder is absent or holds no files and can be written.

        Empty folders and temporary files are what a run leaves that was killed before its first checkpoint.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path}: is a file; name a folder")
        existing = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"--out {self.path}: {existing} cannot be written; choose another folder")
        ours = {self.samples, self.checkpoints, *atomic.leftovers(self.path), *atomic.leftovers(self.checkpoints)}
        if self.path.is_dir() and any(path not in ours for path in self.path.rglob("*")):
            raise UsageError(
                f"--out {self.path}: is not empty; choose another folder, or add --resume to go on with the run in it"
            )

    def make(self) -> None:
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {self.path}: cannot be written ({error}); choose another folder") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Makes the folder and keeps other processes' runs out of it. Raises UsageError where there is one already.

        The lock is the folder's own and goes with the process, however it ends; no file is left behind.
        """
        self.make()
        if fcntl is None:
            yield
            return
        lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise UsageError(
                f"--out {self.path}: another process is training there; wait for its end, or choose another folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            os.close(lock)

    def describe(self, config: Config) -> None:
        """Writes the configuration; again for a resumed run, whose --iterations may be new."""
        atomic.write(self.config, replace(config, resume=False).to_yaml().encode())

    def append(self, row: dict[str, object]) -> None:
        with atomic.writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Takes the logged rows to the disk, before a checkpoint that counts on them."""
        if self.metrics.exists():
            with atomic.writing(self.metrics), self.metrics.open("a") as file:
                os.fsync(file.fileno())

    def rows(self) -> list[dict]:
        """The logged rows. A last line that was cut off by a kill is left out; so is a damaged one, with a warning."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
        rows = [_row(line) for line in lines[:-1]]
        for number, row in enumerate(rows, 1):
            if row is None:
                print(f"warning: {self.metrics}, line {number} is damaged: left out", file=sys.stderr)
        return [row for row in rows if row is not None]

    def rewind(self, iteration: int) -> None:
        """Drops what a killed run wrote after the checkpoint of ``iteration``, which a resumed one writes again."""
        kept = [row for row in self.rows() if row["iteration"] <= iteration]
        atomic.write(self.metrics, "".join(json.dumps(row) + "\n" for row in kept).encode())
        checkpoint.set_aside(self.checkpoints, iteration)
        for picture in self.frames():
            if int(picture.stem) > iteration:
                picture.unlink()
        for folder in (self.path, self.samples, self.checkpoints):
            atomic.remove_leftovers(folder)

    def frame(self, iteration: int) -> Path:
        return self.samples / f"{iteration:06d}.png"

    def frames(self) -> list[Path]:
        """The grids, oldest first."""
        pictures = [path for path in self.samples.glob("*.png") if path.stem.isdecimal()]
        return sorted(pictures, key=lambda path: int(path.stem))


def _row(line: str) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "iteration" in row else None
