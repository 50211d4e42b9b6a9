"""MNIST as one uint8 tensor on the training device, sampled there: 10,000 digits are 8 MB, 60,000 are 47 MB.

Sources, in this order: the 10,000 test digits embedded in the package (no ``--data``); IDX files in ``--data DIR`` or
``DIR/MNIST/raw``, gzipped or not; torchvision's download into DIR.

IDX (LeCun, Cortes, Burges): big-endian; magic 0 0 <type> <dimensions>, one uint32 per dimension, then the values.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from ._optional import optional
from .errors import UsageError

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
UBYTE = 0x08
SIZE = 28


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] → float32 [−1, 1], the range of a tanh generator."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)


@dataclass(frozen=True)
class Digits:
    """images: uint8 [N, 1, 28, 28]; labels: int64 [N]; both on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device))

    def only(self, digits: Iterable[int]) -> "Digits":
        """The images of the given digits."""
        keep = torch.isin(self.labels, torch.tensor(sorted(digits), device=self.labels.device))
        return Digits(self.images[keep], self.labels[keep])

    def shard(self, rank: int, size: int) -> "Digits":
        """Every ``size``-th image, from the ``rank``-th on: the shards of all ranks are the whole, none overlap.

        Raises UsageError where there are fewer images than ranks.
        """
        if len(self) < size:
            raise UsageError(f"--digits, --data: {len(self)} images are too few for {size} processes; start fewer")
        return Digits(self.images[rank::size], self.labels[rank::size])

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``count`` images drawn uniformly with replacement: float32 [count, 1, 28, 28] in [−1, 1]."""
        index = torch.randint(len(self), (count,), device=self.images.device, generator=generator)
        return to_unit(self.images[index])


def embedded() -> Digits:
    """The 10,000 MNIST test digits that come with the package."""
    with resources.as_file(resources.files(__package__) / "assets") as folder:
        return read_folder(folder, "test")


def load(folder: Path | None, split: str = "train") -> Digits:
    """Digits from ``folder``, downloaded into it if it holds none; the embedded ones if ``folder`` is None."""
    if folder is None:
        return embedded()
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--data {folder}: is a file; name the folder that holds the IDX files")
        for place in (folder, folder / "MNIST" / "raw"):
            if _find(place, IMAGES[split]) is not None:
                return read_folder(place, split)
    except PermissionError as error:
        raise UsageError(f"--data {folder}: cannot be read ({error}); change its permissions") from error
    _download(folder)
    return read_folder(folder / "MNIST" / "raw", split)


def read_folder(folder: Path, split: str) -> Digits:
    """The images and labels of one split, checked against each other."""
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
        raise UsageError(f"--data {folder}: label {int(labels.max())} is not a digit; expected labels 0 to 9")
    return Digits(images.unsqueeze(1), labels.long())


def read_idx(path: Path, dimensions: int) -> torch.Tensor:
    """One IDX file of unsigned bytes, gzipped if its name ends in .gz: a uint8 tensor of ``dimensions`` dimensions."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise UsageError(f"--data: cannot read {path} ({error}); fetch the file again") from error
    header = 4 + 4 * dimensions
    expected = bytes((0, 0, UBYTE, dimensions))
    if content[:4] != expected:
        raise UsageError(
            f"--data: {path} is not an IDX file of {dimensions}-dimensional bytes: "
            f"it begins with {content[:4].hex() or 'nothing'}, expected {expected.hex()}"
        )
    if len(content) < header:
        raise UsageError(f"--data: {path} is truncated inside its header ({len(content)} of {header} bytes)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) != header + math.prod(shape):
        raise UsageError(
            f"--data: {path} has {len(content) - header} bytes of values, its header promises {math.prod(shape)} "
            f"({' × '.join(map(str, shape))}); the file is truncated or damaged: fetch it again"
        )
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:]
    return values.reshape(shape)


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


def _download(folder: Path) -> None:
    """The four IDX files into folder/MNIST/raw, from the mirrors that torchvision knows."""
    datasets = optional("torchvision.datasets", "downloading MNIST")
    print(f"no IDX files in {folder}: downloading MNIST there with torchvision")
    try:
        datasets.MNIST(folder, train=True, download=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError once every mirror has failed
        raise UsageError(
            f"--data {folder}: holds no MNIST files and the download failed ({error}). Without a network, put "
            f"{IMAGES['train']}.gz and {LABELS['train']}.gz there, or leave --data out for the embedded 10,000 digits"
        ) from error
