"""What a benchmark is, as data. The harness knows how to time; a case knows what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

OURS = "wgan_kernels"


def the_same(outcome, *inputs):
    """The specification is judged on the inputs that the contenders had."""
    return inputs


@dataclass(frozen=True)
class Case:
    """One question: ``contenders``, ours first, answer it on the inputs that ``make(device, dtype)`` returns.

    A contender returns tensors, or None when the answer is what it left in its inputs. ``traffic`` counts the elements
    that must at least be read or written: a copy of as many bytes is the row's floor; None where arithmetic and not
    memory is the limit. ``given(outcome, *inputs)`` are the inputs of the reference, for outcomes that hold a draw.
    """

    name: str
    what: str
    make: Callable[[torch.device, torch.dtype], tuple]
    contenders: Mapping[str, Callable]
    reference: Callable
    traffic: int | None = None
    given: Callable[..., tuple] = the_same
    in_place: bool = False

    @property
    def op(self) -> str:
        return self.name.partition("/")[0]


def backward(value, *leaves):
    """``value`` and the gradients that ``value.backward()`` leaves in ``leaves``, never accumulated over calls."""
    for leaf in leaves:
        leaf.grad = None
    value.backward()
    return value.detach(), *(leaf.grad for leaf in leaves)


def label(shape) -> str:
    return "x".join(map(str, shape))
