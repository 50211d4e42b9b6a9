"""A folder of pictures of any size, as squares. Folders in it are the labels, if all pictures are in one."""

from pathlib import Path

import torch

from .._optional import optional
from ..errors import UsageError
from .decode import decode
from .images import Images

FILES = "pictures, in it or in folders of it, one folder per label"


def read(folder: Path, side: int) -> Images:
    """All pictures of ``folder`` and the folders in it: the shorter side becomes ``side``, its centre is cut out.

    Labels count the folders directly in it that hold pictures, in the order of their names; where a picture is in
    ``folder`` itself, or there is one such folder only, all are 0. Raises UsageError.
    """
    listing = optional("torchvision.datasets.folder", "reading pictures")
    transforms = optional("torchvision.transforms.v2", "reading pictures")
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: there is no such folder; name the one with the pictures")
    found = listing.make_dataset(folder, {"": 0}, listing.IMG_EXTENSIONS, allow_empty=True)  # "": the folder itself
    paths = [Path(path) for path, _ in found]
    if not paths:
        raise UsageError(f"--data {folder}: holds no pictures ({' '.join(listing.IMG_EXTENSIONS)}); put some there")
    images = decode(paths, side, transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)]))
    return Images(images, _labels([path.relative_to(folder) for path in paths]))


def _labels(paths: list[Path]) -> torch.Tensor:
    if any(len(path.parts) == 1 for path in paths):
        return torch.zeros(len(paths), dtype=torch.int64)
    labels = {name: label for label, name in enumerate(sorted({path.parts[0] for path in paths}))}
    return torch.tensor([labels[path.parts[0]] for path in paths])
