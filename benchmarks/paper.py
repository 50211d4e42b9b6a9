"""A step of N processes on paper: what it takes alone, and one all-reduce of its gradients.

    t(N) = t(1) + latency + 2(N − 1)/N · bytes ÷ bandwidth

Each byte crosses a link of the ring 2(N − 1)/N times: on its way to the sum, and the sum on its way back.

Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
"""

import math
from dataclasses import dataclass

ALONE, TOGETHER = "alone", "together, no exchange"  # one process while the others wait; all at once
SMALL, LARGE = "all-reduce, small", "all-reduce, large"
ESTIMATE, FORMULA = "on paper", "t(N) = t(1) + latency + 2(N − 1)/N · bytes ÷ bandwidth"


def passes(processes):
    return 2 * (processes - 1) / processes


def all_reduce(processes, size, bandwidth, latency):
    """Seconds. ``size`` in the unit that ``bandwidth`` has per second."""
    return latency + passes(processes) * size / bandwidth


def bandwidth(processes, size, seconds):
    """What each link carried per second, where an all-reduce of ``size`` took so many beyond its latency."""
    return passes(processes) * size / seconds if seconds > 0 else math.inf


@dataclass(frozen=True)
class Paper:
    """The step of a case: how many elements it exchanges, and how many the large all-reduce does."""

    processes: int
    exchanged: int
    large: int

    def seconds(self, found):
        """``found``: {name of a part: seconds} of one round."""
        speed = bandwidth(self.processes, self.large, found[LARGE] - found[SMALL])
        return found[ALONE] + all_reduce(self.processes, self.exchanged, speed, found[SMALL])


@dataclass(frozen=True)
class Link:
    """Assumed, not measured: what a data sheet says of one direction, and a latency of the right size."""

    name: str
    bytes_per_s: float
    latency_s: float


ASSUMED_LINKS = (
    Link("NVLink 4", 450e9, 20e-6),
    Link("100 Gbit/s Ethernet", 12.5e9, 50e-6),
    Link("10 Gbit/s Ethernet", 1.25e9, 100e-6),
)
ASSUMED_STEPS = (1e-3, 10e-3)  # seconds of one GPU alone
