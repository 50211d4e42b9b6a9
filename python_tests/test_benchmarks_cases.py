"""The correctness gate of every case that a quick run has, and no speed; those with processes or clipped weights."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("numpy")  # of the processes

from benchmarks import contenders, gate, harness
from benchmarks.cases import CASES, find
from benchmarks.harness import Settings, run_case
from benchmarks.peers.process import PeerError
from benchmarks.ranks import Ranks

ROOT = Path(__file__).parent.parent
QUICK = Settings(torch.device("cpu"), torch.float32, 1, 3, quick=True, seconds=0.0)
GATED = [case for case in CASES if not case.large and not case.processes and case.kind in (None, "cpu")]
GATED = [
    case for case in GATED if case.op != "iteration"
]  # a minute: smaller ones below and in test_benchmarks_peers.py

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", GATED, ids=lambda case: case.name)
def test_every_contender_agrees_with_the_reference(case):
    taking_part, _ = contenders.of_case(case, QUICK)
    fit, faults, unable = gate.admit(case, taking_part, case.make(QUICK.device, QUICK.dtype))
    assert not faults and not unable and list(fit) == taking_part
    floor, buffers = contenders.floor_of(case, QUICK)
    floor.run(*buffers)


# --- what large cases share, on small samples ------------------------------------------------------------------------
def small_clipped(name):
    from benchmarks.cases import iteration_clipped as module
    from benchmarks.networks import s0_batch_norm_critic, s3_batch_norm_critic

    if name == "in turn":
        return module, module.case("s0", s0_batch_norm_critic, 8, module.IN_TURN, module.kernels, samples=2, batch=4)
    return module, module.case("s3", s3_batch_norm_critic, 8, module.JOINTLY, module.everything, samples=4, batch=4)


@pytest.mark.parametrize("name", ["in turn", "jointly"])
def test_the_loops_with_clipped_weights_leave_what_the_reference_leaves(name):
    _, case = small_clipped(name)
    inputs = case.make(QUICK.device, QUICK.dtype)
    for contender in ("wgan_kernels", "eager", "foreach"):
        assert gate.fault(case, case.contenders[contender], inputs) is None


@pytest.mark.parametrize("name", ["in turn", "jointly"])
def test_the_gate_sees_a_clip_or_an_update_that_is_missing(name):
    module, case = small_clipped(name)
    inputs = case.make(QUICK.device, QUICK.dtype)
    losses = module.IN_TURN if name == "in turn" else module.JOINTLY
    clipped = module.kernels if name == "in turn" else module.everything
    wrong = {
        "no clip": lambda *networks: module.plainly(losses, clipped, *networks, clip=lambda params: None),
        "last layer forgotten": lambda *networks: module.plainly(losses, lambda c: clipped(c)[:-1], *networks),
        "signs swapped": lambda *networks: module.plainly([[-f for f in each] for each in losses], clipped, *networks),
    }
    for how, make in wrong.items():
        assert "away from the reference" in gate.fault(case, module.iteration(how, make), inputs), how
    one = lambda *networks: module.plainly(losses[:1], clipped, *networks)  # noqa: E731
    said = gate.fault(case, module.iteration("one", one), inputs)
    assert said is None if name == "jointly" else "tensors where the reference has" in said


# --- several processes -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def two():
    (case,) = find(["scaling/processes/2"])
    return case, run_case(case, QUICK)


def test_two_processes_are_one_with_both_batches_and_stand_beside_the_estimate(two):
    case, result = two
    assert result["status"] == "green" and result["faults"] == [] and result["threads"] == 1
    rows = {row["contender"]: row for row in result["rows"]}
    assert list(rows) == ["wgan_kernels", "eager", *case.units, "matmul", "on paper"]
    assert {rows[name]["role"] for name in case.units} == {"unit"} and rows["on paper"]["role"] == "estimate"
    bytes_ = result["paper"]["bytes"]
    parameters = 784 * 512 + 2 * 512 * 512 + 3 * 512 + 512 + 1
    assert bytes_ == 4 * (parameters + 8) and result["paper"]["processes"] == 2
    for turn, said in enumerate(rows["on paper"]["samples_s"]):
        alone, small, large = (rows[name]["samples_s"][turn] for name in ("alone", *list(case.units)[2:]))
        assert said == pytest.approx(alone + small + (large - small) * bytes_ / result["paper"]["large_bytes"])
    assert rows["on paper"]["share_of_floor"] is rows["alone"]["gflop_per_s"] is None
    assert rows["wgan_kernels"]["gflop_per_s"] == result["operations"] / rows["wgan_kernels"]["seconds"]["median"] / 1e9


def test_the_gate_sees_that_gradients_are_not_averaged(two):
    case, _ = two
    inputs = case.make(QUICK.device, QUICK.dtype)
    with Ranks(case, QUICK) as ranks:
        assert gate.fault(case, lambda *inputs: ranks.answer("eager", *inputs), inputs) is None
        said = gate.fault(case, lambda *inputs: ranks.answer("together, no exchange", *inputs), inputs)
        assert "away from the reference" in said
        with pytest.raises(PeerError, match="rank 0: KeyError: 'nobody'; rank 1: KeyError"):
            ranks.answer("nobody")
        assert ranks.time("alone", 1, False) > 0  # they live on


def test_the_slowest_rank_counts():
    ranks = object.__new__(Ranks)
    ranks.ask = lambda message: [{"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 2.0}]
    assert ranks.time("alone", 1, False) == 3.0


def test_a_rank_that_dies_makes_the_case_red_and_takes_the_others_along(two, monkeypatch):
    case, _ = two
    begun = []

    def dies(self, contender, calls, warm):
        begun.append(self)
        self.ranks[1].process.kill()
        return Ranks.ask(self, {"do": "time", "contender": contender, "calls": calls, "warm": warm})

    monkeypatch.setattr(Ranks, "time", dies)
    result = run_case(case, QUICK)
    assert result["status"] == "red" and result["rows"] == []
    assert "rank 1: the process ended" in result["faults"][0]["fault"]
    assert all(rank.process.returncode is not None for rank in begun[0].ranks)


def test_a_rank_that_cannot_join_makes_the_case_red(two):
    case, _ = two
    result = run_case(replace(case, name="scaling/nothing/2"), QUICK)
    assert result["status"] == "red" and "LookupError: unknown case" in result["faults"][0]["fault"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_no_rank_behind(tmp_path):
    path = tmp_path / "a.json"
    command = [sys.executable, "-m", "benchmarks", "run", "clip/10x64", "scaling/processes/2", "--quick"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "A_TEST_IS": str(tmp_path)}
    process = subprocess.Popen(
        [*command, "--json", str(path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )

    def ranks():
        """Processes of this test: everybody inherits the environment."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                ours = f"A_TEST_IS={tmp_path}".encode() in (entry / "environ").read_bytes()
                if ours and b"benchmarks.rank" in (entry / "cmdline").read_bytes():
                    found.append(entry)
            except OSError:  # gone, or not ours to read
                continue
        return found

    try:
        deadline = time.monotonic() + 90
        while len(ranks()) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err and "interrupted" in err
    deadline = time.monotonic() + 60
    while ranks():  # one that was just being started is not waited for: it ends when it first listens
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert json.loads(path.read_text())["complete"] is False


# --- pytest-benchmark ------------------------------------------------------------------------------------------------
def test_pytest_benchmark_times_the_same_cases_and_compares_what_it_saved(tmp_path):
    pytest.importorskip("pytest_benchmark")
    saved = tmp_path / "saved.json"
    quickly = ["--benchmark-max-time=0.01", "--benchmark-min-rounds=3"]
    run = [sys.executable, "-m", "pytest", "benchmarks", "-k", "clip/10x64", "-p", "no:xdist", "--benchmark-only"]
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    saves = f"--benchmark-json={saved}"
    done = subprocess.run([*run, *quickly, saves], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
    named = {entry["name"]: entry for entry in json.loads(saved.read_text())["benchmarks"]}
    assert set(named) == {f"test_case[clip/10x64-{who}]" for who in ("wgan_kernels", "loop", "foreach")}
    assert {entry["group"] for entry in named.values()} == {"clip/10x64"}
    compare = [sys.executable, "-m", "pytest_benchmark", "compare", str(saved)]
    said = subprocess.run(compare, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0 and len(re.findall(r"clip/10x64-\w+", said.stdout)) >= 3, said.stdout + said.stderr


def test_sets_of_inputs_on_a_gpu(monkeypatch):
    """Enough to overflow its cache, but of many tensors no more than are copied in seconds."""
    monkeypatch.setattr(harness.machine, "cache_bytes", lambda device: 50 << 20)
    device = torch.device("cuda")
    assert len(harness.input_sets((torch.zeros(1 << 20),), device)) == 26
    assert len(harness.input_sets([torch.zeros(4) for _ in range(1000)], device)) == 20
    assert len(harness.input_sets((torch.zeros(1 << 26),), device)) == 2
    assert len(harness.input_sets((torch.zeros(1 << 20),), torch.device("cpu"))) == 1
