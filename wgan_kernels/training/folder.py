"""The files of a run, and the rules about them.

config.yaml           the configuration, complete
metrics.jsonl         one JSON object per logged iteration; evaluations add fid, confidence, histogram
samples/*.png         10×10 grids from the same noise each time, named by iteration
progress.gif          the grids in a row
curves.png            losses, estimate, slope, verdicts
checkpoints/last.pt   the whole state
"""

import json
import os
from dataclasses import replace
from pathlib import Path

from . import checkpoint
from .config import Config
from .errors import UsageError


class RunFolder:
    """The paths of a run's files, and the rules about them: nothing that exists is overwritten."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.film = path / "progress.gif"
        self.curves = path / "curves.png"
        self.checkpoints = path / "checkpoints"
        self.checkpoint = self.checkpoints / "last.pt"

    def check_new(self) -> None:
        """Raises UsageError unless the folder is absent or empty and can be written."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path}: is a file; name a folder")
        existing = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not existing.is_dir() or not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"--out {self.path}: {existing} cannot be written; choose another folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise UsageError(
                f"--out {self.path}: is not empty; choose another folder, or add --resume to go on with the run in it"
            )

    def open(self, config: Config) -> None:
        """Makes the folders and writes the configuration; again for a resumed run, whose --iterations may be new."""
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
            self.config.write_text(replace(config, resume=False).to_yaml(), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {self.path}: cannot be written ({error}); choose another folder") from error

    def append(self, row: dict[str, object]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict]:
        """The logged rows; a last line that was cut off by a kill is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def rewind(self, iteration: int) -> None:
        """Drops what a killed run wrote after its last checkpoint, which a resumed one is about to write again."""
        kept = [row for row in self.rows() if row["iteration"] <= iteration]
        temporary = self.metrics.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(temporary, self.metrics)
        for picture in self.frames():
            if int(picture.stem) > iteration:
                picture.unlink()
        checkpoint.remove_leftovers(self.checkpoints)

    def frame(self, iteration: int) -> Path:
        return self.samples / f"{iteration:06d}.png"

    def frames(self) -> list[Path]:
        return sorted(self.samples.glob("*.png"))
