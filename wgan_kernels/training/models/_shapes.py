"""Which samples a family of networks is for."""

from collections.abc import Callable
from typing import NamedTuple

# Side → (the smallest side, how often it is halved on the way there). 28 is not in the papers: 7 pixels are its 4.
PYRAMIDS = {28: (7, 2), 32: (4, 3), 64: (4, 4), 128: (4, 5)}


class Shapes(NamedTuple):
    """Shapes of one sample: in words, and as a test."""

    words: str
    have: Callable[[tuple[int, ...]], bool]


def _is_a_pyramid(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[1] == shape[2] and shape[1] in PYRAMIDS


DIGITS = Shapes("images of 1×28×28", lambda shape: shape == (1, 28, 28))
SQUARES = Shapes(f"square images of {' or '.join(map(str, PYRAMIDS))} pixels a side", _is_a_pyramid)
IMAGES = Shapes("images", lambda shape: len(shape) == 3)
POINTS = Shapes("points", lambda shape: len(shape) == 1)
