"""A run that is killed again and again, and one that goes on for long: a few here, the many in make endurance."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tyro", reason="the command line needs tyro")

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}


def run(*arguments) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed runs are forks")
def test_a_run_that_is_killed_at_random_moments_equals_one_that_is_not(tmp_path):
    assert "equal bit for bit" in run(HERE / "kills.py", tmp_path, 4)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_the_memory_of_a_long_run_is_flat(tmp_path):
    assert ": flat" in run(HERE / "memory.py", tmp_path, 200)
