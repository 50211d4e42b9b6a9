"""Picture files → one uint8 tensor, decoded once, on all cores: Pillow lets go of Python's lock while it works."""

import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from .._optional import optional
from ..errors import UsageError

CHUNK = 64  # pictures per task


def decode(paths: Sequence[Path], side: int, transform: Callable, smallest: int = 1) -> torch.Tensor:
    """uint8 [N, 3, side, side] of ``transform``, which makes each of Pillow's RGB pictures such a square.

    Raises UsageError naming --side where the memory is not enough, and the file where one cannot be read or is
    narrower or lower than ``smallest`` pixels.
    """
    size = f"{len(paths):,} images of {side}×{side}: {math.ceil(len(paths) * 3 * side**2 / 1e6):,} MB of memory"
    try:
        pixels = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)
    except RuntimeError as error:
        raise UsageError(f"--side {side}: {size}, more than there is; choose a smaller one, or fewer images") from error
    print(f"decoding {size}", flush=True)
    to_tensor = optional("torchvision.transforms.v2.functional", "decoding images").pil_to_tensor

    def fill(start: int) -> int:
        chunk = paths[start : start + CHUNK]
        for index, path in enumerate(chunk, start):
            picture = open_rgb(path)
            if min(picture.size) < smallest:
                raise UsageError(
                    f"--data: the picture {path} is {picture.width}×{picture.height}, smaller than {smallest} pixels; "
                    "this is not the published one: fetch it again, or use --dataset folder"
                )
            pixels[index] = to_tensor(transform(picture))
        return len(chunk)

    progress = optional("rich.progress", "the progress bar")
    with (
        progress.Progress(
            "decoding",
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            disable=not sys.stdout.isatty(),
        ) as bar,
        ThreadPoolExecutor() as pool,
    ):
        task = bar.add_task("", total=len(paths))
        for done in pool.map(fill, range(0, len(paths), CHUNK)):  # an error cancels the tasks that have not begun
            bar.advance(task, done)
    return pixels


def open_rgb(path: Path):
    """Pillow's picture in RGB, turned as its camera was held. 16-bit greys keep their upper byte.

    Raises UsageError naming the file where it is no picture, damaged, or of numbers without a known range.
    """
    library = optional("PIL.Image", "decoding images")
    try:
        with library.open(path) as picture:
            upright = optional("PIL.ImageOps", "decoding images").exif_transpose(picture)
            if upright.mode.startswith("I;16"):  # of which convert would cut all above 255
                values = optional("numpy", "decoding images").asarray(upright)
                upright = library.fromarray((values >> 8).astype("uint8"))
            if upright.mode in ("I", "F"):
                raise ValueError(f"32-bit numbers, mode {upright.mode}; save it with 8 bits")
            return upright.convert("RGB")
    except PermissionError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise UsageError(f"--data: cannot read the picture {path} ({error}); mend it or take it away") from error
