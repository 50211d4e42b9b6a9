"""What `make gpu-check` is made of, where there is no GPU: its steps end in time, and its selections select."""

import os
import subprocess
import sys
import time
from pathlib import Path

import gpu_check
import pytest
import torch

from benchmarks import cases

# It has a child that does not mind being interrupted, whose number it tells in a file.
STUBBORN = """
import subprocess, sys, time
sleep = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", sleep])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


# Imports as on a machine with what deep learning takes, and nothing else.
BARE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tyro", "ot"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_every_file_says_what_it_is_missing(tmp_path):
    """Where nothing is installed for it: a file that cannot be imported would make the whole suite fail."""
    (tmp_path / "bare.py").write_text(BARE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "bare", "-p", "no:cacheprovider", "--collect-only", "-q"]
    found = subprocess.run(
        [*command, "python_tests"],
        cwd=gpu_check.ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]


@pytest.fixture
def outcomes(monkeypatch):
    monkeypatch.setattr(gpu_check, "outcomes", [])
    monkeypatch.setattr(gpu_check, "deadline", time.monotonic() + 60)
    monkeypatch.setattr(gpu_check, "GRACE", 2)
    return gpu_check.outcomes


def test_a_step_says_how_it_went(outcomes):
    for code in (0, 3):
        gpu_check.step("it", [sys.executable, "-c", f"raise SystemExit({code})"], 30)
    assert [outcome.split("  ")[0] for outcome in outcomes] == ["passed", "FAILED (exit code 3)"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_nothing_of_a_step_that_is_cut_short_goes_on(outcomes, tmp_path):
    told = tmp_path / "child"
    gpu_check.step("it", [sys.executable, "-c", STUBBORN, told], 3)
    assert outcomes[0].startswith("cut short after 3 s")
    child = int(told.read_text())
    while time.monotonic() < gpu_check.deadline - 50 and is_alive(child):
        time.sleep(0.1)
    assert not is_alive(child)


def is_alive(process):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_every_op_is_sanitized():
    """Tests of each are selected, of the optimizers those that they share. They skip here."""
    files = [gpu_check.TESTS / f"test_{name}.py" for name in (*gpu_check.OPS, "optim")]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    command += ["-k", f"cuda-cuda and ({gpu_check.SANITIZED})"]
    found = subprocess.run([*command, *files], cwd=gpu_check.ROOT, capture_output=True, text=True).stdout
    tests = [line for line in found.splitlines() if "[" in line]
    for op in gpu_check.OPS:
        assert any(f"test_{op}.py" in test or (f"-{op}]" in test and "test_optim.py" in test) for test in tests), op


def test_benchmarks_run_plainly(monkeypatch, capsys):
    """On the CPU, a case of the kernels and one of the steps, each as its own."""
    monkeypatch.setattr(cases, "CASES", cases.find(["clip/10x64", "critic_step/tiny/1x2"]))
    gpu_check.benchmark_plainly(["clip", "critic_step"], torch.device("cpu"))
    told = capsys.readouterr().out
    assert "clip/10x64: green" in told and "critic_step/tiny/1x2: green" in told
    assert told.count(" µs") >= 6
