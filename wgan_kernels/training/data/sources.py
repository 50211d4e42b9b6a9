"""Which data sets there are, and what each needs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from . import celeba, cifar10, image_folder, mnist, svhn
from .images import Images
from .toys import TOYS, Toy


@dataclass(frozen=True)
class Source:
    """read: (folder, side) → the images; files: what it looks for in the folder; remedy: what it does without."""

    read: Callable[[Path, int], Images]
    files: str
    remedy: str


def _downloads(size: str) -> str:
    return f"one without is filled by torchvision's download ({size})"


SOURCES = {
    "mnist": Source(lambda folder, side: mnist.digits(folder), mnist.FILES, _downloads("12 MB")),
    "fashion-mnist": Source(lambda folder, side: mnist.fashion(folder), mnist.FILES, _downloads("31 MB")),
    "cifar10": Source(lambda folder, side: cifar10.read(folder), cifar10.FILES, _downloads("170 MB")),
    "svhn": Source(lambda folder, side: svhn.read(folder), svhn.FILE, _downloads("182 MB")),
    "celeba": Source(
        celeba.read,
        celeba.FILES,
        "torchvision's download (needs pip install gdown) often fails: put them there yourself",
    ),
    "folder": Source(image_folder.read, image_folder.FILES, "there is no download"),
}
DATASETS = (*SOURCES, *TOYS)


def load(dataset: str, folder: Path | None = None, side: int = 64) -> Images | Toy:
    """The training images of a data set, or a distribution in the plane.

    folder: where the files are or are to be downloaded to; None for the distributions, and for the embedded digits.
    side: of the squares that celeba and folder are made; the others' images keep their own.

    Raises UsageError, naming --dataset or --data, what was expected and the remedy.
    """
    if dataset not in DATASETS:
        raise UsageError(f"--dataset {dataset}: expected one of {' '.join(DATASETS)}")
    if dataset in TOYS:
        if folder is not None:
            raise UsageError(f"--data {folder}: {dataset} is a formula without files; leave --data out")
        return TOYS[dataset]
    source = SOURCES[dataset]
    if folder is None:
        if dataset == "mnist":
            return mnist.embedded()
        raise UsageError(f"--data: add a folder for --dataset {dataset}, with {source.files}; {source.remedy}")
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--data {folder}: is a file; name the folder with {source.files}")
        return source.read(folder, side)
    except OSError as error:
        raise UsageError(f"--data {folder}: cannot be read ({error}); mend it, or change its permissions") from error
