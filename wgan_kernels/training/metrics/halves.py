"""Two sets of real samples with no sample in common: what is compared with, and what shows the best one can get."""

from collections.abc import Iterator

import torch

from ..data import Images, Toy, to_unit

COUNT = 5000  # samples of each set at most: as many as are generated for a verdict
CHUNK = 500
SEED = 0


def of_images(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of both sets among the images, in random order: as many in each. Of fewer than 4, some twice."""
    count = min(COUNT, max(2, len(images) // 2))  # the FID needs two
    places = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED)).to(images.images.device)
    return places[:count], places[-count:]


def at(images: Images, places: torch.Tensor) -> Iterator[torch.Tensor]:
    """Batches [≤ CHUNK, C, H, W] in [−1, 1] of the images at those places."""
    for chunk in places.split(CHUNK):
        yield to_unit(images.images[chunk])


def of_toy(toy: Toy) -> tuple[torch.Tensor, torch.Tensor]:
    """[COUNT, d] both."""
    random = torch.Generator().manual_seed(SEED)
    return toy.sample(COUNT, random), toy.sample(COUNT, random)
