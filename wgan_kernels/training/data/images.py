"""Images as one uint8 tensor on the training device, sampled there: 10,000 digits are 8 MB, CelebA at 64×64 2.5 GB."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..errors import UsageError


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] → float32 [−1, 1], the range of a tanh generator."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)


@dataclass(frozen=True, eq=False)
class Images:
    """images: uint8 [N, C, H, W]; labels: int64 [N], zeros where a data set has none; both on one device."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each."""
        return tuple(self.images.shape[1:])

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.images.to(device), self.labels.to(device))

    def only(self, labels: Iterable[int]) -> "Images":
        """The images of the given labels. Raises UsageError where there are none."""
        wanted = sorted(set(labels))
        keep = torch.isin(self.labels, torch.tensor(wanted, dtype=torch.int64, device=self.labels.device))
        if not keep.any():
            found = self.labels.unique().tolist()
            remedy = f"choose from {_shown(found)}" if any(found) else "they have no labels: leave --digits out"
            raise UsageError(f"--digits {_shown(wanted)}: none of the {len(self)} images is one; {remedy}")
        return Images(self.images[keep], self.labels[keep])

    def shard(self, rank: int, size: int) -> "Images":
        """Every ``size``-th image, from the ``rank``-th on: the shards of all ranks are the whole, none overlap.

        Raises UsageError where there are fewer images than ranks.
        """
        if len(self) < size:
            raise UsageError(f"--digits, --data: {len(self)} images are too few for {size} processes; start fewer")
        return Images(self.images[rank::size], self.labels[rank::size])

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """``count`` images drawn uniformly with replacement: float32 [count, C, H, W] in [−1, 1]."""
        index = torch.randint(len(self), (count,), device=self.images.device, generator=generator)
        return to_unit(self.images[index])

    def fingerprint(self) -> str:
        """Tells other images from these: a resumed run goes on with those that it began with."""
        return f"{len(self)} images, crc32 {zlib.crc32(self.images.cpu().contiguous().numpy()):08x}"


def _shown(labels: list[int]) -> str:
    return " ".join(map(str, labels))
