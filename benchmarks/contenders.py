"""Who takes part in a case: ours, the baselines, the same without a penalty, and the floor."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

import wgan_kernels as wk

from .case import OURS
from .peers import PROCESSES
from .peers.process import PeerError

PRODUCT = {"cpu": 1024, "cuda": 4096}  # the side of the matrices whose product is a floor


@dataclass(frozen=True)
class Contender:
    """``scale``: how many times the call's seconds stand for the row.

    ``timer(calls, warm)``: seconds per call, taken in the processes where the calls are made; without, they are made
    and timed here.
    """

    name: str
    role: str  # ours · baseline · unit · floor · estimate
    run: Callable
    backend: str | None = None
    scale: float = 1.0
    timer: Callable[[int, bool], float] | None = None

    def context(self):
        return wk.use_backend(self.backend) if self.backend else nullcontext()


def of_case(case, settings, peers=None, ranks=None):
    """Who takes part, ours first, and ``[{"contender", "reason"}]`` for who was wanted and does not.

    ``peers``: what starts the baselines of other processes; without, they are left out. ``ranks``: the processes of
    the case, where it has any.
    """
    taking_part, skipped = [], []
    for name, run in case.contenders.items():
        if name == OURS:
            taking_part.append(Contender(name, "ours", run))
            for backend in settings.backends or ():
                if ranks:
                    skipped.append({"contender": f"{name} [{backend}]", "reason": "not chosen in other processes"})
                else:
                    taking_part.append(Contender(f"{name} [{backend}]", "ours", run, backend))
        elif settings.peers is None and settings.quick and name == "compile":
            skipped.append({"contender": name, "reason": "--quick leaves it out unless --peers names it"})
        elif settings.peers is None or name in settings.peers:
            taking_part.append(Contender(name, "baseline", run))
    taking_part += (Contender(name, "unit", run) for name, (run, _) in case.units.items())
    if ranks:
        taking_part = [
            replace(each, run=partial(ranks.answer, each.name), timer=partial(ranks.time, each.name))
            for each in taking_part
        ]
    for name in PROCESSES if case.told and peers else ():
        if settings.peers is None and settings.quick:
            skipped.append({"contender": name, "reason": "--quick leaves it out unless --peers names it"})
        elif settings.peers is None or name in settings.peers:
            try:
                taking_part.append(of_peer(name, case, settings, peers))
            except PeerError as error:
                skipped.append({"contender": name, "reason": str(error)})
    return taking_part, skipped


def of_peer(name, case, settings, peers):
    """
    Raises:
        PeerError: it does not run here, or not in this precision or on this device.
    """
    if (settings.device.type, settings.dtype) != ("cpu", torch.float32):
        raise PeerError("asked for float32 on the CPU alone")
    peer = peers.start(name)
    return Contender(name, "baseline", partial(peer.answer, case.told), timer=peer.time)


def floor_of(case, settings):
    """``(contender, one set of its inputs)``, or None where neither bytes nor operations are counted."""
    kind = case.floor(settings.dtype.itemsize)
    if kind == "copy":
        return copy_of(case.traffic, settings, case.in_place)
    if kind == "matmul":
        return product_of(case.operations, settings)
    return None


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


def product_of(operations, settings, side=None):
    """A contender whose time is that of ``operations`` at the rate of a matrix product, and one set of its inputs."""
    side = side or PRODUCT[settings.device.type]
    factors = torch.randn(2, side, side, device=settings.device, dtype=settings.dtype)
    out = torch.empty(side, side, device=settings.device, dtype=settings.dtype)
    run = lambda a, b, out: torch.mm(a, b, out=out)  # noqa: E731
    return Contender("matmul", "floor", run, scale=operations / (2 * side**3)), (*factors, out)
