"""MNIST and Fashion-MNIST: 28×28 greys, ten classes, four IDX files of the same names.

The 10,000 test digits of MNIST come with the package. Otherwise the files are in ``--data DIR``, or where torchvision
puts them, ``DIR/MNIST/raw`` or ``DIR/FashionMNIST/raw``.
"""

from importlib import resources
from pathlib import Path

from ..errors import UsageError
from .download import download
from .idx import read_idx
from .images import Images

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
SIZE = 28
FILES = f"{IMAGES['train']} and {LABELS['train']} (gzipped or not)"


def embedded() -> Images:
    """The 10,000 MNIST test digits that come with the package."""
    with resources.as_file(resources.files("wgan_kernels.training") / "assets") as folder:
        return read_folder(folder, "test")


def digits(folder: Path) -> Images:
    """The 60,000 training digits of ``folder``, downloaded into it if it holds none."""
    return _training_images("MNIST", folder, f"{FILES}, or leave --data out for the embedded 10,000 digits")


def fashion(folder: Path) -> Images:
    """The 60,000 training images of ``folder``, downloaded into it if it holds none."""
    return _training_images("FashionMNIST", folder, FILES)


def read_folder(folder: Path, split: str) -> Images:
    """The images and labels of one split, checked against each other. Raises UsageError."""
    images = read_idx(_expect(folder, IMAGES[split]), dimensions=3)
    labels = read_idx(_expect(folder, LABELS[split]), dimensions=1)
    if images.shape[1:] != (SIZE, SIZE):
        raise UsageError(f"--data {folder}: images are {tuple(images.shape[1:])}, expected ({SIZE}, {SIZE})")
    if len(images) != len(labels):
        raise UsageError(
            f"--data {folder}: {len(images)} images but {len(labels)} labels; get the pair from one source"
        )
    if len(images) == 0:
        raise UsageError(f"--data {folder}: the {split} files hold no images")
    if labels.max() > 9:
        raise UsageError(f"--data {folder}: label {int(labels.max())} is not one of ten; expected labels 0 to 9")
    return Images(images.unsqueeze(1), labels.long())


def _training_images(dataset: str, folder: Path, wanted: str) -> Images:
    raw = folder / dataset / "raw"
    for place in (folder, raw):
        if _find(place, IMAGES["train"]) is not None:
            return read_folder(place, "train")
    download(dataset, folder, wanted)
    return read_folder(raw, "train")


def _find(folder: Path, stem: str) -> Path | None:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    return None


def _expect(folder: Path, stem: str) -> Path:
    path = _find(folder, stem)
    if path is None:
        raise UsageError(f"--data {folder}: no {stem} or {stem}.gz beside the other files; put it there")
    return path
