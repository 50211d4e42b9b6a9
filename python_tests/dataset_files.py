"""Small files in the true formats of the data sets."""

import hashlib
import pickle
import struct

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

from wgan_kernels.training.data import cifar10, mnist, svhn


def idx(values: torch.Tensor) -> bytes:
    """An IDX file of unsigned bytes."""
    header = bytes((0, 0, 8, values.dim())) + struct.pack(f">{values.dim()}I", *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def write_idx(folder, images, labels) -> None:
    """MNIST's or Fashion-MNIST's training images [N, 28, 28] and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mnist.IMAGES["train"]).write_bytes(idx(images))
    (folder / mnist.LABELS["train"]).write_bytes(idx(labels))


def write_cifar10_binary(folder, images, labels) -> None:
    """The records of the binary version, two in each batch."""
    folder.mkdir(parents=True, exist_ok=True)
    records = torch.cat([labels.to(torch.uint8).unsqueeze(1), images.flatten(1)], 1)
    for name, pair in zip(cifar10.BINARY, records.split(2), strict=True):
        (folder / name).write_bytes(pair.numpy().tobytes())


def write_cifar10_pickles(folder, images, labels) -> dict[str, str]:
    """The Python version, two images in each batch; the MD5 of each file."""
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    md5 = {}

    def write(name, content) -> None:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    for number, (some, theirs) in enumerate(zip(images.split(2), labels.split(2), strict=True), 1):
        write(f"data_batch_{number}", {"data": some.flatten(1).numpy(), "labels": theirs.tolist()})
    write("test_batch", {"data": images[:1].flatten(1).numpy(), "labels": [0]})
    write("batches.meta", {"label_names": list("0123456789")})
    return md5


def write_svhn(folder, images, labels, **changes) -> None:
    """[N, 3, 32, 32] → X [32, 32, 3, N]; the digit 0 has the label 10."""
    named = torch.where(labels == 0, 10, labels).to(torch.uint8).unsqueeze(1)
    content = {"X": images.permute(2, 3, 1, 0).numpy(), "y": named.numpy()} | changes
    savemat(folder / svhn.FILE, {name: value for name, value in content.items() if value is not None})


def picture(width: int, height: int, mode: str = "RGB"):
    """A smooth one, in which every pixel differs from the others."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], 2).astype(np.uint8)).convert(mode)


def planes(shown) -> torch.Tensor:
    """Pillow's RGB picture → uint8 [3, H, W]."""
    return torch.from_numpy(np.array(shown)).permute(2, 0, 1)


def write_faces(folder, count: int = 3) -> None:
    """Pictures of CelebA's size and names."""
    folder.mkdir(parents=True)
    for number in range(count):
        face = picture(178, 218).point(lambda value, shift=10 * number: max(0, value - shift))
        face.save(folder / f"{number + 1:06d}.jpg", quality=95)
