"""The one file that times: in every round each contender of a case takes one turn, in an order drawn afresh.

Ratios are formed inside a round, where the state of the machine is shared. In a fixed order a contender would always
inherit the caches of the same predecessor: one kernel entered twice differed from itself by a factor of two.
"""

import gc
import math
import random
import time
from dataclasses import dataclass
from statistics import quantiles

import torch

from . import contenders as who
from . import gate, machine
from .case import OURS, Case

MIN_SAMPLE_S = 1.2e-3  # a shorter sample would measure the clock and its interrupts


@dataclass(frozen=True)
class Settings:
    """How to time: ``peers`` and ``backends`` None mean every baseline, and the backend that is chosen for you."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    rounds: int
    quick: bool = False
    peers: tuple[str, ...] | None = None
    backends: tuple[str, ...] | None = None


def spread(values):
    q1, median, q3 = quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def sample(run, pool, inner, device):
    """Seconds per call over ``inner`` calls, which take the input sets of ``pool`` in turn.

    The call before the clock starts brings the caches into the state that these calls keep them in.
    """
    calls = [pool[index % len(pool)] for index in range(inner)]
    run(*pool[-1])
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for inputs in calls:
            run(*inputs)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / inner
    start = time.perf_counter()
    for inputs in calls:
        run(*inputs)
    return (time.perf_counter() - start) / inner


def enough_calls(run, pool, device):
    """How many calls one sample takes to last MIN_SAMPLE_S; finding out warms up."""
    inner = 1
    while (seconds := inner * sample(run, pool, inner, device)) < MIN_SAMPLE_S:
        inner = max(inner + 1, math.ceil(inner * min(10, 1.2 * MIN_SAMPLE_S / seconds)))
    return inner


def interleave(contenders, pools, settings):
    """``{name: [seconds per call in round 0, 1, …]}`` · ``{name: calls per sample}`` · preemptions per second."""
    order = random.Random(0)
    inner, samples = {}, {contender.name: [] for contender in contenders}
    for contender in contenders:
        with contender.context():
            inner[contender.name] = enough_calls(contender.run, pools[contender.name], settings.device)
    gc.collect()
    gc.disable()
    start, preempted = time.perf_counter(), machine.preemptions()
    try:
        for _ in range(settings.rounds):
            for contender in order.sample(contenders, len(contenders)):
                name = contender.name
                with contender.context():
                    samples[name].append(sample(contender.run, pools[name], inner[name], settings.device))
    finally:
        gc.enable()
    return samples, inner, (machine.preemptions() - preempted) / (time.perf_counter() - start)


def input_sets(inputs, device):
    """On a GPU enough copies of ``inputs`` to overflow its L2 twice, so that each call reads memory; on a CPU one."""
    if device.type != "cuda":
        return [inputs]
    size = sum(tensor.numel() * tensor.element_size() for tensor in gate.tensors(inputs))
    count = min(1000, 1 + math.ceil(2 * machine.cache_bytes(device) / max(1, size)))
    return [inputs, *(gate.clone(inputs) for _ in range(count - 1))]


def mode(case, pool, settings):
    if settings.device.type == "cuda":
        how = f"CUDA events around back-to-back eager calls, rotating over {len(pool)} sets of inputs"
    else:
        how = "wall clock around back-to-back calls on the same inputs, which stay in cache where they fit"
    return f"{how}; in place, on values that the first call has brought to rest" if case.in_place else how


def run_case(case: Case, settings: Settings) -> dict:
    """One entry of the JSON's ``results``. A contender that disagrees with the reference leaves the case untimed."""
    torch.manual_seed(0)
    inputs = case.make(settings.device, settings.dtype)
    contenders, skipped = who.of_case(case, settings)
    fit, faults, unable = gate.admit(case, contenders, inputs)
    result = {
        "case": case.name,
        "what": case.what,
        "status": "red" if faults else "green",
        "faults": faults,
        "skipped": skipped + unable,
        "rows": [],
    }
    if faults:
        return result

    timed, pool = list(fit), input_sets(inputs, settings.device)
    pools = {contender.name: pool for contender in timed}
    size = case.traffic and case.traffic * settings.dtype.itemsize
    if case.traffic:
        floor, buffers = who.copy_of(case.traffic, settings, case.in_place)
        timed.append(floor)
        pools[floor.name] = input_sets(buffers, settings.device)
    samples, inner, preempted = interleave(timed, pools, settings)

    def row(contender):
        own = samples[contender.name]
        ours, copy = samples[OURS], samples.get("copy")
        return {
            "contender": contender.name,
            "role": contender.role,
            "backend": contender.backend or (machine.backend(case.op, settings) if contender.name == OURS else None),
            "first_call_s": fit.get(contender),
            "calls_per_sample": inner[contender.name],
            "seconds": spread(own),
            "samples_s": own,
            "gb_per_s": size and size / spread(own)["median"] / 1e9,
            "share_of_copy": copy and spread([c / s for c, s in zip(copy, own, strict=True)]),
            "times_ours": spread([s / o for s, o in zip(own, ours, strict=True)]),
        }

    return result | {
        "mode": mode(case, pool, settings),
        "bytes": size,
        "preempted_per_s": preempted,
        "rows": [row(contender) for contender in timed],
    }


def copy_bandwidth(settings: Settings) -> dict:
    """What a copy reaches on this machine: out of cache and, on a CPU, inside its cache too."""
    cache = machine.cache_bytes(settings.device)
    sizes = {"out_of_cache": min(max(4 * cache, 2**28), 2**30)}
    if settings.device.type == "cpu":
        sizes["in_cache"] = 2**19
    speeds = {}
    for name, size in sizes.items():
        floor, buffers = who.copy_of(size // settings.dtype.itemsize, settings)
        samples, *_ = interleave([floor], {floor.name: [buffers]}, settings)
        speeds[name] = {"bytes": size, "gb_per_s": spread([size / s / 1e9 for s in samples[floor.name]])}
    return speeds
