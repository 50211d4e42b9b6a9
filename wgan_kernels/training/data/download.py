"""What a folder lacks, by torchvision's own downloads, which compare each file with its published MD5."""

from pathlib import Path

from .._optional import optional
from ..errors import UsageError


def download(dataset: str, folder: Path, wanted: str, **options: object) -> None:
    """Has ``torchvision.datasets.<dataset>`` fill ``folder``.

    Raises UsageError, which asks for ``wanted`` there instead.
    """
    datasets = optional("torchvision.datasets", f"downloading {dataset}")
    print(f"{dataset}: no files of it in {folder}: downloading them there with torchvision", flush=True)
    try:
        getattr(datasets, dataset)(folder, download=True, **options)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError once every mirror has failed
        reason = " ".join(str(error).split())  # on one line
        raise UsageError(
            f"--data {folder}: holds no files of {dataset} and the download failed ({reason}). Put there {wanted}"
        ) from error
