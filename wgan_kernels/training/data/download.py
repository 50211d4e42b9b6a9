"""What a folder lacks, by torchvision's own downloads, which compare each file with its published MD5."""

import contextlib
import os
from pathlib import Path

from .._optional import optional
from ..errors import UsageError


def download(dataset: str, folder: Path, wanted: str, **options: object) -> None:
    """Has ``torchvision.datasets.<dataset>`` fill ``folder``.

    Raises UsageError, which asks for ``wanted`` there instead; folders that the download made and left empty are gone.
    """
    datasets = optional("torchvision.datasets", f"downloading {dataset}")
    before = _folders(folder)
    print(f"{dataset}: no files of it in {folder}: downloading them there with torchvision", flush=True)
    try:
        getattr(datasets, dataset)(folder, download=True, **options)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError once every mirror has failed
        for made in sorted(_folders(folder) - before, reverse=True):  # the deepest first
            with contextlib.suppress(OSError):  # it holds something
                made.rmdir()
        reason = " ".join(str(error).split())  # on one line
        raise UsageError(
            f"--data {folder}: holds no files of {dataset} and the download failed ({reason}). Put there {wanted}"
        ) from error


def _folders(folder: Path) -> set[Path]:
    """Those that exist of the folder, all that it lies in and all that lie in it."""
    above = {place for place in (folder, *folder.parents) if place.is_dir()}
    return above | {Path(place) for place, _, _ in os.walk(folder)}
