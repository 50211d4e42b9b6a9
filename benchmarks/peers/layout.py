"""PyTorch's memory layout and that of JAX and TensorFlow: the same networks, channels last.

Rows and columns are mirrored on the way. ``padding="same"`` puts the odd row of zeros at the end, PyTorch's symmetric
padding uses it at the start: in the mirror they agree, and the other framework needs no padding of its own.
"""

from dataclasses import dataclass
from math import prod

import numpy


@dataclass(frozen=True)
class Layout:
    """PyTorch's array is read in ``shape``, its axes ``mirrored``, put into ``order`` and merged into ``merged``."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    mirrored: tuple[int, ...] = ()
    merged: tuple[int, ...] | None = None

    def there(self, array):
        array = numpy.flip(array.reshape(self.shape), self.mirrored).transpose(self.order)
        return numpy.ascontiguousarray(array if self.merged is None else array.reshape(self.merged))

    def back(self, array, shape):
        """``array`` of the other framework, as PyTorch has it in ``shape``."""
        array = array.reshape([self.shape[axis] for axis in self.order]).transpose(numpy.argsort(self.order))
        return numpy.ascontiguousarray(numpy.flip(array, self.mirrored)).reshape(shape)


def same(shape):
    return Layout(tuple(shape), tuple(range(len(shape))))


def samples(shape):
    """[…, C, H, W] ↔ […, H, W, C]; vectors stay."""
    lead = len(shape) - 3
    if lead < 1:
        return same(shape)
    return Layout(tuple(shape), (*range(lead), lead + 1, lead + 2, lead), (lead + 1, lead + 2))


def kernel(shape):
    """[out, in, H, W] ↔ [H, W, in, out]; of a transposed convolution [in, out, H, W] ↔ [H, W, out, in]."""
    return Layout(tuple(shape), (2, 3, 1, 0), (2, 3))


def matrix(shape, image_in, image_out):
    """[out, in] ↔ [in, out], where an image that was flattened, or will be unflattened, lies in memory differently."""
    wide, narrow = shape
    if image_in:
        return Layout((wide, *image_in), (2, 3, 1, 0), (2, 3), (narrow, wide))
    if image_out:
        return Layout((*image_out, narrow), (3, 1, 2, 0), (1, 2), (narrow, wide))
    return Layout((wide, narrow), (1, 0))


def vector(image):
    """[C·H·W] ↔ [H·W·C] for an image [C, H, W]."""
    return Layout(tuple(image), (1, 2, 0), (1, 2), (prod(image),))


def parameters(layers, shapes):
    """A Layout for each parameter of a described network (``networks.describe``), whose shapes these are."""
    shapes = iter(shapes)
    for index, layer in enumerate(layers):
        kind = layer["kind"]
        if kind in ("Conv2d", "ConvTranspose2d"):
            yield kernel(next(shapes))
            yield same(next(shapes))
        elif kind == "Linear":
            before = layers[index - 1] if index else {}
            flattened = before.get("kind") == "Flatten" and len(before["input"]) == 3 and before["input"]
            image = next((later["shape"] for later in layers[index:] if later["kind"] == "Unflatten"), None)
            yield matrix(next(shapes), flattened, image)
            shape = next(shapes)
            yield vector(image) if image else same(shape)
        elif kind == "BatchNorm2d":
            yield same(next(shapes))
            yield same(next(shapes))
        elif kind == "LayerNorm":
            for _ in range(2):
                shape = tuple(next(shapes))
                yield Layout(shape, (1, 2, 0), (1, 2))
