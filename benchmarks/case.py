"""What a benchmark is, as data. The harness knows how to time; a case knows what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from .paper import Paper

OURS = "wgan_kernels"
WITHOUT = "without penalty"
RIDGE = 8  # operations per byte: with fewer, memory is the limit on any device of today, with more arithmetic


def the_same(outcome, *inputs):
    """The specification is judged on the inputs that the contenders had."""
    return inputs


def nothing(*inputs):
    return ()


@dataclass(frozen=True)
class Case:
    """One question: ``contenders``, ours first, answer it on the inputs that ``make(device, dtype)`` returns.

    A contender returns tensors, or None when the answer is what it left in its inputs. ``given(outcome, *inputs)`` are
    the inputs of the reference, for outcomes that hold a draw; ``added(*inputs)`` is what it gets beside them.

    ``traffic`` counts the elements that must at least be read or written, ``operations`` the arithmetic that must at
    least be done, a multiply-add as two. The row's floor is a copy of as many bytes or, beyond ``RIDGE`` operations per
    byte, a matrix product of as many operations.

    ``told(*inputs)`` is the question for another process: ``(task, {name: tensor})``. ``units`` are no rivals, but what
    the times of these are set against, each with its reference: ``WITHOUT``, the same work with no penalty, of which a
    penalty must take ``least`` times as long; or the parts from which ``paper`` makes an estimate. ``axis``: for a
    point of a scaling curve, what varies and its value. ``threads`` and ``rounds`` overrule the settings, rounds
    downwards only. ``large`` ones are not for a quick run, those of a ``kind`` for that kind of device alone.

    With ``processes`` all of it runs in so many at once (``ranks.py``), each on its ``share(rank, *inputs)``; the
    outcome is rank 0's, the seconds those of the slowest. ``make`` has to build the same from the same seed.

    ``tolerance``, of the norm of each output, is for networks with kinks: an activation within rounding of one falls on
    either side, and changes a gradient by a sample's share of it. Without, each element is judged (``gate.py``).
    """

    name: str
    what: str
    make: Callable[[torch.device, torch.dtype], tuple]
    contenders: Mapping[str, Callable]
    reference: Callable
    traffic: int | None = None
    operations: int | None = None
    given: Callable[..., tuple] = the_same
    added: Callable[..., tuple] = nothing
    in_place: bool = False
    told: Callable[..., tuple] | None = None
    units: Mapping[str, tuple[Callable, Callable]] = field(default_factory=dict)
    least: float | None = None
    paper: Paper | None = None
    processes: int | None = None
    share: Callable[..., tuple] | None = None
    axis: tuple[str, int] | None = None
    threads: int | None = None
    rounds: int | None = None
    tolerance: float | None = None
    large: bool = False
    kind: str | None = None

    @property
    def op(self) -> str:
        return self.name.partition("/")[0]

    def floor(self, itemsize):
        """``copy``, ``matmul`` or None."""
        if self.operations is None or self.traffic is None:
            return "matmul" if self.operations else "copy" if self.traffic else None
        return "matmul" if self.operations > RIDGE * self.traffic * itemsize else "copy"


def backward(value, *leaves):
    """``value`` and the gradients that ``value.backward()`` leaves in ``leaves``, never accumulated over calls."""
    for leaf in leaves:
        leaf.grad = None
    value.backward()
    return value.detach(), *(leaf.grad for leaf in leaves)


def label(shape) -> str:
    return "x".join(map(str, shape))
