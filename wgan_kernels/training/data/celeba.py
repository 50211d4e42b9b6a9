"""CelebA, aligned and cropped: 202,599 faces of 178×218 (Liu et al. 2015), here squares without labels.

Its attributes, landmarks and splits are not needed, and not asked for.
"""

from pathlib import Path

import torch

from .._optional import optional
from .decode import decode
from .download import download
from .images import Images

FACES = 202_599
CROP = 178  # the whole width: the square that DCGAN and its followers take
FILES = "img_align_celeba/*.jpg (from img_align_celeba.zip, 1.4 GB)"


def read(folder: Path, side: int) -> Images:
    """The faces in ``folder/img_align_celeba`` or ``folder/celeba/img_align_celeba``, downloaded there if there are
    none: the central 178×178 pixels, resized to ``side``. Raises UsageError.
    """
    transforms = optional("torchvision.transforms.v2", "reading CelebA")
    paths = _faces(folder)
    if not paths:
        download("CelebA", folder, FILES, split="all")
        paths = _faces(folder)
    if len(paths) != FACES:
        print(f"CelebA: {len(paths):,} of its {FACES:,} faces in {folder}; training on these", flush=True)
    square = transforms.Compose([transforms.CenterCrop(CROP), transforms.Resize(side)])
    images = decode(paths, side, square, smallest=CROP)
    return Images(images, torch.zeros(len(images), dtype=torch.int64))


def _faces(folder: Path) -> list[Path]:
    for place in (folder / "img_align_celeba", folder / "celeba" / "img_align_celeba"):
        if faces := sorted(place.glob("*.jpg")):
            return faces
    return []
