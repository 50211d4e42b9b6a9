"""wgan_kernels.training.checkpoint and atomic: what is on the disk is whole at every moment, or known not to be."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

from wgan_kernels.training import atomic, checkpoint
from wgan_kernels.training.errors import UsageError


def save(folder, iteration, keep=3, **state):
    return checkpoint.save(folder, iteration, {"iteration": iteration, **state}, keep)


def test_round_trip(tmp_path):
    path = save(tmp_path, 400, weights=torch.arange(3.0), config={"digits": [1, 2], "data": None})
    state, damaged = checkpoint.newest(tmp_path)
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert (state["iteration"], state["config"], damaged) == (400, {"digits": [1, 2], "data": None}, [])
    assert (path, os.listdir(tmp_path)) == (tmp_path / "000400.pt", ["000400.pt"])


def test_torch_reads_a_checkpoint_as_it_is(tmp_path):
    state = torch.load(save(tmp_path, 1, weights=torch.arange(3.0)), weights_only=True)
    assert torch.equal(state["weights"], torch.arange(3.0))


def test_the_newest_few_are_kept(tmp_path):
    for iteration in (0, 999_999, 1_000_000, 1_000_001):  # by number, not by name
        save(tmp_path, iteration, keep=3)
    assert [path.stem for path in checkpoint.saved(tmp_path)] == ["999999", "1000000", "1000001"]
    assert checkpoint.newest(tmp_path)[0]["iteration"] == 1_000_001
    save(tmp_path, 1_000_002, keep=1)
    assert [path.stem for path in checkpoint.saved(tmp_path)] == ["1000002"]


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    (tmp_path / "notes.pt").write_text("mine")
    (tmp_path / "000001.pt.damaged").write_text("evidence")
    save(tmp_path, 2, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["000001.pt.damaged", "000002.pt", "notes.pt"]


class Unpicklable:
    def __reduce__(self):
        raise OSError("disk full")


def test_a_failed_save_leaves_the_old_files(tmp_path):
    before = save(tmp_path, 1).read_bytes()
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, 2, keep=1, broken=Unpicklable())
    assert os.listdir(tmp_path) == ["000001.pt"]
    assert (tmp_path / "000001.pt").read_bytes() == before


def test_a_full_disk_leaves_the_old_files_and_nothing_else(tmp_path):
    """In a process that may not write files of more than 100 kB: the write fails in the middle, as on a full disk."""
    code = (
        "import resource, sys, torch; from pathlib import Path; from wgan_kernels.training import checkpoint\n"
        "folder = Path(sys.argv[1]); checkpoint.save(folder, 1, {'weights': torch.ones(1000)}, keep=1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "checkpoint.save(folder, 2, {'weights': torch.ones(100_000)}, keep=1)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert f"UsageError: {tmp_path / '000002.pt'} cannot be written (File too large); what was saved" in done.stderr
    assert os.listdir(tmp_path) == ["000001.pt"]
    assert checkpoint.newest(tmp_path)[1] == []


SAVER = """
import sys, torch
from pathlib import Path
from wgan_kernels.training import checkpoint
for iteration in range(1000000):
    state = {"iteration": iteration, "weights": torch.full((4_000_000,), float(iteration))}
    checkpoint.save(Path(sys.argv[1]), iteration, state, keep=2)
    if iteration == 0:
        print("saving", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.011])
def test_kill_in_the_middle_of_a_save_leaves_whole_files(tmp_path, delay):
    with subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "saving\n"
        # Not only somewhere, but while the next file is half written.
        while not atomic.leftovers(tmp_path):
            time.sleep(0.0005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    state, damaged = checkpoint.newest(tmp_path)
    assert torch.equal(state["weights"], torch.full((4_000_000,), float(state["iteration"])))
    assert damaged == []
    atomic.remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == {path.name for path in checkpoint.saved(tmp_path)}


def test_missing(tmp_path):
    with pytest.raises(UsageError, match=r"--resume: there is no checkpoint in .*; leave --resume out"):
        checkpoint.newest(tmp_path)


def flipped(content: bytes, position: float) -> bytes:
    index = int(position * (len(content) - 1))
    return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "checksum missing": lambda content: content[: -checkpoint.TRAILER],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"hello" * 100,
    "pickle": lambda content: pickle.dumps({"format": checkpoint.FORMAT}, protocol=2),
    **{f"bit at {place}": (lambda content, place=place: flipped(content, place)) for place in (0, 0.2, 0.5, 0.9, 1)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_of_a_damaged_file_the_one_before_is_taken_and_it_is_named(tmp_path, damage):
    for iteration in (1, 2, 3):
        save(tmp_path, iteration, weights=torch.full((1000,), float(iteration)))
    for path in checkpoint.saved(tmp_path)[1:]:
        path.write_bytes(damage(path.read_bytes()))
    state, damaged = checkpoint.newest(tmp_path)
    assert torch.equal(state["weights"], torch.full((1000,), 1.0))
    assert [sentence.split(" is damaged")[0] for sentence in damaged] == [
        str(tmp_path / "000003.pt"), str(tmp_path / "000002.pt")
    ]  # fmt: skip
    (tmp_path / "000001.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"000003\.pt .*000001\.pt .*No checkpoint is left") as raised:
        checkpoint.newest(tmp_path)
    assert "\n" not in str(raised.value)


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("exploited",)


def test_code_in_a_checkpoint_is_not_run_even_with_the_right_checksum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path, 1)
    save(tmp_path, 2, trainer=Exploit())
    state, (sentence,) = checkpoint.newest(tmp_path)
    assert state["iteration"] == 1
    assert "000002.pt cannot be read safely" in sentence
    assert sorted(os.listdir(tmp_path)) == ["000001.pt", "000002.pt"]


def test_another_format_is_refused_rather_than_passed_over(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    save(tmp_path, 2)
    monkeypatch.undo()
    with pytest.raises(UsageError, match=r"000002\.pt is not a checkpoint of format 3"):
        checkpoint.newest(tmp_path)


def test_every_file_is_flushed_to_the_disk_before_it_takes_its_name_and_the_name_after(tmp_path, monkeypatch):
    """The order that survives a power cut; a kill alone would not show a missing fsync."""
    happened = []

    def watch(name, of):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments: happened.append((name, of(*arguments))) or call(*arguments))

    watch("fsync", lambda descriptor: os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
    watch("replace", lambda source, target: target.name)
    save(tmp_path, 1)
    temporary = f".000001.pt.{os.getpid()}.tmp"
    assert happened == [("fsync", temporary), ("replace", "000001.pt"), ("fsync", tmp_path.name)]
