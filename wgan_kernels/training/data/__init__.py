"""What is learned: images, read once into one uint8 tensor, and distributions in the plane."""

from .images import Images, to_unit
from .mnist import embedded
from .sources import DATASETS, load
from .toys import Toy

__all__ = ["DATASETS", "Images", "Toy", "embedded", "load", "to_unit"]
