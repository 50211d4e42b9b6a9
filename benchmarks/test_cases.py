"""The same cases for pytest-benchmark: ``pytest benchmarks --benchmark-only`` shows a regression of one op in a minute.

``-k 'clip and not loop'`` selects, ``--benchmark-autosave`` keeps, ``--benchmark-compare`` compares with what was kept;
``--benchmark-disable`` leaves the correctness gate alone. Of several processes, and of large cases, only ``python -m
benchmarks`` takes the time.
"""

import pytest
import torch

from benchmarks import gate
from benchmarks.cases import CASES


@pytest.mark.parametrize(
    ("case", "contender"),
    [
        pytest.param(case, contender, id=f"{case.name}-{contender}")
        for case in CASES
        if not case.large and case.kind in (None, "cpu") and not case.processes
        for contender in case.contenders
        if contender != "compile"  # seconds each: python -m benchmarks times it
    ],
)
def test_case(benchmark, case, contender):
    torch.manual_seed(0)
    inputs, run = case.make(torch.device("cpu"), torch.float32), case.contenders[contender]
    assert gate.fault(case, run, inputs) is None
    benchmark.group = case.name
    benchmark(run, *inputs)
