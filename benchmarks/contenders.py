"""Who takes part in a case: ours, the baselines, and the copy that is the floor."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

import wgan_kernels as wk

from .case import OURS


@dataclass(frozen=True)
class Contender:
    name: str
    role: str  # ours · baseline · floor
    run: Callable
    backend: str | None = None

    def context(self):
        return wk.use_backend(self.backend) if self.backend else nullcontext()


def of_case(case, settings):
    """Who takes part, ours first, and ``[{"contender", "reason"}]`` for who was wanted and does not."""
    taking_part, skipped = [], []
    for name, run in case.contenders.items():
        if name == OURS:
            taking_part.append(Contender(name, "ours", run))
            for backend in settings.backends or ():
                taking_part.append(Contender(f"{name} [{backend}]", "ours", run, backend))
        elif settings.peers is None and settings.quick and name == "compile":
            skipped.append({"contender": name, "reason": "--quick leaves it out unless --peers names it"})
        elif settings.peers is None or name in settings.peers:
            taking_part.append(Contender(name, "baseline", run))
    return taking_part, skipped


def copy_of(elements, settings, in_place=False):
    """A contender that moves ``elements``, half of them read and half written, and one set of its inputs.

    In place stands for a copy to and fro, which touches as little memory as a change in place does.
    """

    def copy(into, out_of):
        into.copy_(out_of)

    def to_and_fro(into, out_of):
        into.copy_(out_of)
        out_of.copy_(into)

    buffer = torch.ones(2, max(1, elements // (4 if in_place else 2)), device=settings.device, dtype=settings.dtype)
    return Contender("copy", "floor", to_and_fro if in_place else copy), tuple(buffer)
