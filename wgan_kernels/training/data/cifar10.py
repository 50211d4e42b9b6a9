"""CIFAR-10: 50,000 training images, 32×32 in colour, ten classes (Krizhevsky 2009).

It is published in two forms. The binary one (``data_batch_1.bin`` … ``data_batch_5.bin``) is records of a label and
3,072 pixels, which are read as what they are. The Python one, which torchvision downloads, is pickles, and a pickle can
run anything: torchvision reads them here only where every file has its published MD5.
"""

from pathlib import Path

import torch

from .._optional import optional
from ..errors import UsageError
from .download import download
from .images import Images

BINARY = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # a label, then the rows of red, of green and of blue
FILES = f"the binary version's {BINARY[0]} … {BINARY[-1]}, or cifar-10-batches-py as published"


def read(folder: Path) -> Images:
    """The binary files in ``folder`` or ``folder/cifar-10-batches-bin``; else the pickles in
    ``folder/cifar-10-batches-py``, downloaded if they are not there. Raises UsageError.
    """
    for place in (folder, folder / "cifar-10-batches-bin"):
        if any((place / name).is_file() for name in BINARY):
            return _read_binary(place)
    if not (folder / "cifar-10-batches-py").is_dir():
        download("CIFAR10", folder, FILES)
    return _read_published(folder)


def _read_binary(folder: Path) -> Images:
    records = torch.cat([_records(folder / name) for name in BINARY])
    return Images(records[:, 1:].reshape(-1, *SHAPE), records[:, 0].long())


def _records(path: Path) -> torch.Tensor:
    """uint8 [N, 3073]"""
    if not path.is_file():
        raise UsageError(f"--data: {path} is missing beside the other batches; put all five there")
    content = path.read_bytes()
    if not content or len(content) % RECORD:
        raise UsageError(
            f"--data: {path} has {len(content)} bytes, no multiple of a record's {RECORD}; "
            "the file is truncated or damaged: fetch it again"
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, RECORD)
    if (label := int(records[:, 0].max())) > 9:
        raise UsageError(f"--data: {path} has the label {label}, expected 0 to 9; the file is damaged: fetch it again")
    return records


def _read_published(folder: Path) -> Images:
    try:
        batches = optional("torchvision.datasets", "reading CIFAR-10").CIFAR10(folder)
    except RuntimeError as error:
        raise UsageError(
            f"--data {folder}: a file in cifar-10-batches-py is missing or not the published one (MD5), and no other "
            "pickle is opened; delete that folder to have it downloaded again, or use the binary version"
        ) from error
    images = torch.from_numpy(batches.data).permute(0, 3, 1, 2)
    return Images(images, torch.tensor(batches.targets))
