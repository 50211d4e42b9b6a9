"""Data parallel by ``torchrun``: N processes (ranks) run the same script, each on batches of its own.

    g ← (g₀ + … + g_{N−1}) / N        before every optimizer step: one all-reduce of all gradients in one buffer

There is no wrapper around a network: the hooks of ``DistributedDataParallel`` count on one backward per forward, and a
gradient penalty has two (pytorch issues 47562, 63812, 175024). So a step may be made in any way, as a program or by
autograd; only its optimizer is told::

    average_gradients_before_step(optimizer)

Without ``torchrun`` every function here is that of one rank, and the same script runs alone.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import reduce
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.utils.hooks import RemovableHandle

T = TypeVar("T")

# A rank that dies closes its connections and is missed at once. This is for one that hangs, and longer than rank 0
# leaves the others waiting while it downloads, evaluates or draws. PyTorch's own is half an hour.
TIMEOUT = timedelta(minutes=5)


class LostRank(Exception):
    """Another rank has ended or does not answer: this one cannot go on."""


class EndedElsewhere(SystemExit):
    """Another rank has stopped the run and says why: this one ends with its status, in silence."""


@contextlib.contextmanager
def session(timeout: timedelta = TIMEOUT) -> Iterator[None]:
    """Joins the ranks that ``torchrun`` started, and leaves together with them; alone, it does nothing.

    Gloo carries tensors on CPUs, NCCL those on GPUs. From now on only rank 0 writes to the standard output.
    Raises LostRank if a rank does not come within ``timeout``, nor to a later exchange.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    import torch.distributed.nn  # its functions keep as defaults the group there is on their import: none yet

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _exchange():
        store, rank_here, ranks = next(dist.rendezvous("env://", timeout=timeout))
        # torchrun's store outlives a restart: without a name of its own, a rank called its dead predecessors.
        store = dist.PrefixStore(f"attempt {restarts()}", store)
        dist.init_process_group(backend, store=store, rank=rank_here, world_size=ranks, timeout=timeout)
    if rank() > 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # below Python's stdout, which a signal handler goes around
    try:
        yield
        anyone(False)  # a rank that ended while rank 0 still writes would have torchrun end that one, too
    finally:
        # Gloo's threads end with the group. One that lets go of its last tensor while Python ends aborts the process.
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """The rank among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_initialized() else 0


def restarts() -> int:
    """How often torchrun has started the ranks anew after one of them failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def max_restarts() -> int:
    """How often it may: ``torchrun --max-restarts``."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))


def job() -> str | None:
    """The same for a run of torchrun and its restarts, and for no other; None without torchrun."""
    if not dist.is_torchelastic_launched():
        return None
    return f"{os.environ['TORCHELASTIC_RUN_ID']}, process {os.getppid()} of {socket.gethostname()}"


def average_gradients_before_step(optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Has every ``optimizer.step()`` begin with ``average_gradients``; the handle's ``remove`` ends that.

    Every rank has to take the same steps, with the same parameters in the same order. A ``GradScaler`` decides between
    backward and step whether to step at all: with one, call ``average_gradients`` yourself, before the scaler.

    Raises TypeError in a step with a closure, which makes its gradients later.
    """

    def average(optimizer, arguments, options):
        if any(closure is not None for closure in (*arguments[1:], options.get("closure"))):
            raise TypeError("optimizer.step(closure): gradients are averaged before it makes them; call step()")
        average_gradients(optimizer)

    return optimizer.register_step_pre_hook(average)


@torch.no_grad()
def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """The mean over the ranks of every parameter's gradient, in place.

    With losses that are means over B samples, it is the gradient of one process whose batch is all N·B samples. A
    gradient that is None counts as zeros where another rank has one, and stays None where none has.
    """
    if size() == 1:
        return
    params = [param for group in optimizer.param_groups for param in group["params"]]
    grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
    missing = [index for index, param in enumerate(params) if param.grad is None]
    present = torch.ones(len(params), device=params[0].device)  # float32: half gradients are averaged in it, too
    present[missing] = 0
    average_([*grads, present])
    if missing:  # only then is the device waited for
        shares = present.tolist()
        for index in missing:
            params[index].grad = grads[index] if shares[index] > 0 else None


@torch.no_grad()
def average_(tensors: Iterable[torch.Tensor]) -> None:
    """t ← mean over the ranks, for dense tensors of one device: one all-reduce, in the widest of their types."""
    tensors = list(tensors)
    if size() == 1 or not tensors:
        return
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    flat = torch.cat([tensor.reshape(-1).to(dtype) for tensor in tensors])
    with _exchange():
        dist.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


@torch.no_grad()
def broadcast_(tensors: Iterable[torch.Tensor]) -> None:
    """t ← rank 0's t."""
    if size() == 1:
        return
    for tensor in tensors:
        dense = tensor.contiguous()
        with _exchange():
            dist.broadcast(dense, src=0)
        tensor.copy_(dense)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """[…] on each rank → [N, …] on every rank; on the CPU."""
    if size() == 1:
        return tensor.unsqueeze(0)
    found = [torch.empty_like(tensor) for _ in range(size())]
    with _exchange():
        dist.all_gather(found, tensor.contiguous())
    return torch.stack(found)


def anyone(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set on any rank. All ranks meet here."""
    if size() == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.int32)
    with _exchange():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(map(bool, found.tolist()))


def from_rank_0(function: Callable[[], T]) -> T:
    """What ``function`` returns on rank 0, the only one to call it; if it raises there, the others end in silence."""
    if size() == 1:
        return function()
    outcome = [None, None]  # the status to end with, the result
    try:
        if rank() == 0:
            outcome[1] = function()
    except BaseException as error:
        outcome[0] = error.code if isinstance(error, SystemExit) else 1
        _send(outcome)
        raise
    _send(outcome)
    status, result = outcome
    if status is not None:
        raise EndedElsewhere(status)
    return result


def once_per_machine_first(function: Callable[[], T]) -> T:
    """What ``function`` returns here. The first rank of each machine calls it before the others: it may download."""
    result, failure = None, None
    if local_rank() == 0:
        try:
            result = function()
        except Exception as error:
            failure = error
    (failed,) = anyone(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise EndedElsewhere(1)
    return result if local_rank() == 0 else function()


def _send(outcome: list) -> None:
    """Rank 0's values replace those of the others."""
    with _exchange():
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """Around a collective: what it raises when a rank is gone."""
    try:
        yield
    except RuntimeError as error:  # Gloo's is a plain one
        reason = str(error).rpartition("] ")[2].partition(". ")[0]  # Gloo's: [its file:line] what. Advice.
        raise LostRank(f"another rank has ended or does not answer ({reason})") from error
