"""The one file that times: in every round each contender of a case takes one turn, in an order drawn afresh.

Ratios are formed inside a round, where the state of the machine is shared. In a fixed order a contender would always
inherit the caches of the same predecessor: one kernel entered twice differed from itself by a factor of two.
"""

import contextlib
import gc
import math
import random
import time
from dataclasses import dataclass, replace
from statistics import quantiles

import torch

from . import contenders as who
from . import gate, machine
from .case import OURS, WITHOUT, Case
from .graphs import as_graphs
from .memory import peak_bytes
from .paper import ESTIMATE
from .peers.process import PeerError
from .ranks import Ranks

MIN_SAMPLE_S = 1.2e-3  # a shorter sample would measure the clock and its interrupts
LONG_S = 0.1  # a call as long as this meets the caches as its own work leaves them
MIN_ROUNDS = 3  # quartiles need as many
RECORDED = 4  # calls of a set of inputs on a GPU after which a whole step is a graph, and replayed
MOST_TENSORS = 20_000  # in all sets of inputs: a copy of 1,000 parameters takes 30 ms


@dataclass(frozen=True)
class Settings:
    """How to time: ``peers`` and ``backends`` None mean every baseline, and the backend that is chosen for you.

    ``graphs``: replays of CUDA graphs instead of eager calls. No case begins a round after ``seconds``, but it has
    MIN_ROUNDS.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    rounds: int
    quick: bool = False
    peers: tuple[str, ...] | None = None
    backends: tuple[str, ...] | None = None
    graphs: bool = False
    seconds: float = 40.0


def spread(values):
    q1, median, q3 = quantiles(values, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def sample(contender, pool, inner, device, warm=True):
    """Seconds per call over ``inner`` calls, which take the input sets of ``pool`` in turn.

    ``warm``: one call before the clock starts, which brings the caches into the state that these calls keep them in.
    A contender in another process takes the time there, the same way.
    """
    if contender.timer:
        return contender.timer(inner, warm)
    return contender.scale * seconds_of(contender.run, pool, inner, device, warm)


def seconds_of(run, pool, inner, device, warm):
    calls = [pool[index % len(pool)] for index in range(inner)]
    if warm:
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


def enough_calls(contender, pool, device):
    """How many calls one sample takes to last MIN_SAMPLE_S, and whether one goes before; finding out warms up."""
    if device.type == "cuda" and not contender.timer:
        for inputs in pool * RECORDED:
            contender.run(*inputs)
    inner = 1
    while (seconds := inner * sample(contender, pool, inner, device) / contender.scale) < MIN_SAMPLE_S:
        inner = max(inner + 1, math.ceil(inner * min(10, 1.2 * MIN_SAMPLE_S / seconds)))
    return inner, seconds < LONG_S


def interleave(contenders, pools, settings):
    """``{name: [seconds per call in round 0, 1, …]}`` · ``{name: calls per sample}`` · preemptions per second."""
    order = random.Random(0)
    inner, warm, samples = {}, {}, {contender.name: [] for contender in contenders}
    for contender in contenders:
        with contender.context():
            inner[contender.name], warm[contender.name] = enough_calls(
                contender, pools[contender.name], settings.device
            )
    gc.collect()
    gc.disable()
    start, preempted = time.perf_counter(), machine.preemptions()
    try:
        for done in range(settings.rounds):
            if done >= MIN_ROUNDS and time.perf_counter() - start > settings.seconds:
                break
            for contender in order.sample(contenders, len(contenders)):
                name = contender.name
                with contender.context():
                    samples[name].append(sample(contender, pools[name], inner[name], settings.device, warm[name]))
    finally:
        gc.enable()
    return samples, inner, (machine.preemptions() - preempted) / (time.perf_counter() - start)


def input_sets(inputs, device):
    """On a GPU enough copies of ``inputs`` to overflow its L2 twice, so that each call reads memory, or as many as are
    made in seconds; on a CPU one.
    """
    if device.type != "cuda":
        return [inputs]
    tensors = list(gate.tensors(inputs))
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    most = max(2, min(1000, MOST_TENSORS // max(1, len(tensors))))
    count = min(most, 1 + math.ceil(2 * machine.cache_bytes(device) / max(1, size)))
    return [inputs, *(gate.clone(inputs) for _ in range(count - 1))]


def mode(case, pool, settings):
    if settings.device.type == "cuda":
        calls = "replays of CUDA graphs" if settings.graphs else "eager calls"
        how = f"CUDA events around back-to-back {calls}, rotating over {len(pool)} sets of inputs"
    else:
        how = "wall clock around back-to-back calls on the same inputs, which stay in cache where they fit"
    return f"{how}; in place, on values that the first call has brought to rest" if case.in_place else how


@contextlib.contextmanager
def threads_of(case, settings):
    torch.set_num_threads(case.threads or settings.threads)
    try:
        yield
    finally:
        torch.set_num_threads(settings.threads)


def processes_of(case, settings):
    return Ranks(case, settings) if case.processes else contextlib.nullcontext()


def run_case(case: Case, settings: Settings, peers=None) -> dict:
    """One entry of the JSON's ``results``. A contender that disagrees with the reference leaves the case untimed.

    ``peers``: what starts the baselines of other processes.
    """
    if case.rounds:
        settings = replace(settings, rounds=min(settings.rounds, case.rounds))
    result = {"case": case.name, "what": case.what, "axis": case.axis, "status": "green", "faults": [], "skipped": []}
    result |= {"rows": []}
    try:
        with threads_of(case, settings), processes_of(case, settings) as ranks:
            torch.manual_seed(0)
            inputs = case.make(settings.device, settings.dtype)
            contenders, skipped = who.of_case(case, settings, peers, ranks)
            fit, faults, unable = gate.admit(case, contenders, inputs)
            result["skipped"] = skipped + unable
            if not faults:
                return result | timings(case, settings, inputs, fit)
    except PeerError as error:  # a process was lost, when it had been found right
        faults = [{"contender": "a process", "fault": str(error)}]
    return result | {"status": "red", "faults": faults}


def peak_of(contender, inputs):
    """Of its second call: the first may make optimizers, try several ways or compile."""
    with contender.context():
        contender.run(*inputs)
        return peak_bytes(contender.run, inputs)


def timings(case, settings, inputs, fit):
    """What a result says of the contenders that are ``fit``: {contender: seconds of its first call}."""
    timed, pool = list(fit), input_sets(inputs, settings.device)
    pools = {contender.name: pool for contender in timed}
    floor = who.floor_of(case, settings)
    peaks = {}
    if floor:
        contender, buffers = floor
        # Where memory is not what the call is about, how much it needs is a result.
        if contender.name == "matmul" and not settings.quick:
            peaks = {c.name: peak_of(c, gate.clone(inputs)) for c in timed if not c.timer}
        timed.append(contender)
        pools[contender.name] = input_sets(buffers, settings.device)
    unable = []
    if settings.graphs and settings.device.type == "cuda":
        timed, pools, unable = as_graphs(timed, pools)
    samples, inner, preempted = interleave(timed, pools, settings)
    if case.paper and samples.keys() >= case.units.keys():
        rounds = [dict(zip(samples, found, strict=True)) for found in zip(*samples.values(), strict=True)]
        samples[ESTIMATE] = [case.paper.seconds(found) for found in rounds]
        timed.append(who.Contender(ESTIMATE, "estimate", case.paper.seconds))
    size = case.traffic and case.traffic * settings.dtype.itemsize

    def over(name, own):
        """Of each round: ``own`` ÷ the one of that name, where there is one."""
        other = samples.get(name)
        return other and spread([mine / theirs for mine, theirs in zip(own, other, strict=True)])

    def row(contender):
        own = samples[contender.name]
        median = spread(own)["median"]
        limit = floor and samples.get(floor[0].name)
        does_it = contender.role in ("ours", "baseline", "floor") or None  # what the case counts
        return {
            "contender": contender.name,
            "role": contender.role,
            "backend": contender.backend or (machine.backend(case.op, settings) if contender.name == OURS else None),
            "first_call_s": fit.get(contender),
            "calls_per_sample": inner.get(contender.name),
            "seconds": spread(own),
            "samples_s": own,
            "gb_per_s": does_it and size and size / median / 1e9,
            "gflop_per_s": does_it and case.operations and case.operations / median / 1e9,
            "peak_bytes": peaks.get(contender.name),
            "share_of_floor": does_it and limit and spread([f / s for f, s in zip(limit, own, strict=True)]),
            "times_ours": over(OURS, own),
            "times_without": over(WITHOUT, own),
        }

    return {
        "mode": mode(case, pool, settings),
        "rounds": len(samples[OURS]),
        "threads": torch.get_num_threads(),
        "bytes": size,
        "operations": case.operations,
        "floor": floor and floor[0].name,
        "least_times_without": case.least,
        "preempted_per_s": preempted,
        "paper": case.paper
        and {
            "processes": case.paper.processes,
            "bytes": case.paper.exchanged * settings.dtype.itemsize,
            "large_bytes": case.paper.large * settings.dtype.itemsize,
        },
        "left_out": unable,  # of CUDA graphs
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


def product_rate(settings: Settings) -> dict:
    """What a matrix product reaches on this machine: out of cache and, on a CPU, inside its cache too."""
    sides = {"in_cache": 512, "out_of_cache": 2048} if settings.device.type == "cpu" else {"out_of_cache": 8192}
    speeds = {}
    for name, side in sides.items():
        operations = 2 * side**3
        floor, factors = who.product_of(operations, settings, side)
        samples, *_ = interleave([floor], {floor.name: [factors]}, replace(settings, rounds=min(settings.rounds, 15)))
        speeds[name] = {"side": side, "gflop_per_s": spread([operations / s / 1e9 for s in samples[floor.name]])}
    return speeds
