"""SVHN, cropped digits: 73,257 training images, 32×32 in colour, ten classes (Netzer et al. 2011).

``train_32x32.mat`` is read by SciPy, as torchvision does; a file that is there needs no published MD5.
"""

from pathlib import Path

import torch

from .._optional import optional
from ..errors import UsageError
from .download import download
from .images import Images

FILE = "train_32x32.mat"


def read(folder: Path) -> Images:
    """The training images of ``folder``, downloaded into it if it holds none. Raises UsageError."""
    matlab = optional("scipy.io", "reading SVHN")
    path = folder / FILE
    if not path.is_file():
        download("SVHN", folder, FILE)
    try:
        content = matlab.loadmat(path, variable_names=("X", "y"))
        images, labels = torch.from_numpy(content["X"]), torch.from_numpy(content["y"]).flatten().long()
    except PermissionError:
        raise
    except Exception as error:  # a damaged file fails anywhere in it: ValueError, TypeError, KeyError, zlib.error, …
        raise UsageError(
            f"--data: cannot read {path} ({type(error).__name__}: {error}); "
            "delete it to have it downloaded again, or fetch it yourself"
        ) from error
    if images.shape != (32, 32, 3, len(labels)) or images.dtype != torch.uint8 or len(labels) == 0:
        raise UsageError(
            f"--data: {path} holds {len(labels)} labels y and X of {images.dtype} {tuple(images.shape)}, expected "
            "one label for each image of uint8 (32, 32, 3, images); fetch it again"
        )
    if labels.min() < 1 or labels.max() > 10:
        wrong = int(labels[(labels < 1) | (labels > 10)][0])
        raise UsageError(f"--data: {path} has the label {wrong}, expected 1 to 10, of which 10 is a 0; fetch it again")
    return Images(images.permute(3, 2, 0, 1).contiguous(), labels % 10)
