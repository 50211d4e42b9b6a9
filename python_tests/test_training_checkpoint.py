"""wgan_kernels.training.checkpoint: the file on disk is whole at every moment."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

from wgan_kernels.training import checkpoint
from wgan_kernels.training.errors import UsageError


def test_round_trip(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weights": torch.arange(3.0), "iteration": 7, "config": {"digits": [1, 2], "data": None}})
    state = checkpoint.load(path)
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert (state["iteration"], state["config"]) == (7, {"digits": [1, 2], "data": None})
    assert os.listdir(tmp_path) == ["last.pt"]


class Unpicklable:
    def __reduce__(self):
        raise OSError("disk full")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"iteration": 1})
    before = path.read_bytes()
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"weights": torch.ones(1000), "broken": Unpicklable()})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]


SAVER = """
import sys, torch
from pathlib import Path
from wgan_kernels.training import checkpoint
path = Path(sys.argv[1])
for iteration in range(1000000):
    checkpoint.save(path, {"iteration": iteration, "weights": torch.full((4_000_000,), float(iteration))})
    if iteration == 0:
        print("saving", flush=True)
"""


@pytest.mark.parametrize("delay", [0.013, 0.031, 0.057])
def test_kill_in_the_middle_of_a_save_leaves_a_whole_file(tmp_path, delay):
    path = tmp_path / "last.pt"
    with subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "saving\n"
        # Not only somewhere, but while the next file is half written.
        while not any(name.endswith(".tmp") for name in os.listdir(tmp_path)):
            time.sleep(0.0005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    state = checkpoint.load(path)
    assert torch.equal(state["weights"], torch.full((4_000_000,), float(state["iteration"])))
    checkpoint.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["last.pt"]


def test_missing(tmp_path):
    with pytest.raises(UsageError, match=r"no checkpoint .*last\.pt"):
        checkpoint.load(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="half"),
        pytest.param(lambda content: b"hello" * 100, id="text"),
        pytest.param(lambda content: pickle.dumps({"format": 1}, protocol=2), id="pickle"),
    ],
)
def test_damaged(tmp_path, damage):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weights": torch.ones(1000)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match="--resume"):
        checkpoint.load(path)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "trainer": Exploit()}, "last.pt")
    with pytest.raises(UsageError, match="damaged or no checkpoint"):
        checkpoint.load(tmp_path / "last.pt")
    assert os.listdir(tmp_path) == ["last.pt"]


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 0}, tmp_path / "last.pt")
    with pytest.raises(UsageError, match="not a checkpoint of format"):
        checkpoint.load(tmp_path / "last.pt")
