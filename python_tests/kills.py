"""Trains, is killed by SIGKILL at random moments, resumes, and in the end equals a run that was never killed.

    python python_tests/kills.py FOLDER [KILLS [SEED]]        (make kills: 50)

Every second kill waits for a checkpoint's temporary file and comes while that is there: in the middle of a save. After
each, the newest checkpoint is whole and no older than the one before. The runs are forks of this process, which has
imported PyTorch and started no thread: an import takes longer than what is to be killed.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import ot  # noqa: F401  (so that the runs need not)
import torch
import torchmetrics.image.fid  # noqa: F401  (nor this)
from small_runs import flat

from wgan_kernels.training import atomic, checkpoint, cli, run

SIZES = "--digits 3 --batch-size 2 --n-critic 1 --latent 8 --device cpu"
MOMENTS = "--checkpoint-every 3 --log-every 2 --sample-every 10 --eval-every 25"
PER_KILL = 15  # iterations that the whole run has; about ten are done from one kill to the next
run.EVALUATED = 100  # seconds less in each of the evaluations, which are killed too


def start(out: Path, iterations: int, resume: bool) -> int:
    """The process id of a fork that does what the script does."""
    pid = os.fork()
    if pid:
        return pid
    with (out.parent / "log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(1)
    end = f"--iterations {iterations} --out {out}" + " --resume" * resume
    status = cli.main(f"{SIZES} {MOMENTS} {end}".split())
    sys.stdout.flush()
    os._exit(status)


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait_for_a_save(pid: int, folder: Path, number: int) -> None:
    """Until the ``number``-th temporary file from now on is there."""
    before = set(atomic.leftovers(folder))
    seen = set(before)
    while not ended(pid) and len(seen - before) < number:
        seen.update(atomic.leftovers(folder))


def state_of(out: Path) -> dict:
    state, damaged = checkpoint.newest(out / "checkpoints")
    assert not damaged, damaged
    return state


def kill_and_resume(out: Path, kills: int, moments: random.Random) -> int:
    """Kills ``kills`` runs in ``out``, then lets one end. Returns in how many a save was cut off."""
    folder, done, cut = out / "checkpoints", -1, 0
    iterations = PER_KILL * (kills + 2)
    for kill in range(kills):
        pid = start(out, iterations, resume=done >= 0)
        if kill % 2:
            wait_for_a_save(pid, folder, moments.randint(1, 3))
        else:
            time.sleep(moments.uniform(0.0, 1.5))
        assert not ended(pid), f"ended by itself before kill {kill + 1}: {(out.parent / 'log').read_text()[-2000:]}"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        cut += bool(atomic.leftovers(folder))
        if checkpoint.saved(folder):
            before, done = done, state_of(out)["trainer"]["iteration"]
            assert done >= before, f"iteration {before} was lost: {done}"
        print(f"kill {kill + 1}: resumable from {done}", "in a save" if atomic.leftovers(folder) else "", flush=True)
    finish(out, iterations, resume=done >= 0)
    return cut


def finish(out: Path, iterations: int, resume: bool) -> None:
    _, status = os.waitpid(start(out, iterations, resume), 0)
    assert os.waitstatus_to_exitcode(status) == 0, (out.parent / "log").read_text()


def rows(out: Path) -> list[dict]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) | {"seconds": 0} for line in lines]


def check_equal(out: Path, whole: Path) -> None:
    """Weights, optimizers, average, random numbers, logged rows and pictures: bit for bit."""
    ours, expected = flat(state_of(out)["trainer"]), flat(state_of(whole)["trainer"])
    assert len(ours) == len(expected) > 40
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True)), "the weights differ"
    assert rows(out) == rows(whole), "the logged rows differ"
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    for name in files:
        if name.suffix in (".png", ".safetensors", ".gif") and name.name != "curves.png":
            assert (out / name).read_bytes() == (whole / name).read_bytes(), f"{name} differs"


def main(folder: str, kills: str = "50", seed: str = "0") -> None:
    out, whole = Path(folder) / "killed", Path(folder) / "whole"
    started = time.monotonic()
    cut = kill_and_resume(out, int(kills), random.Random(int(seed)))
    finish(whole, PER_KILL * (int(kills) + 2), resume=False)
    check_equal(out, whole)
    assert cut > 0, "no save was cut off"
    print(f"{kills} kills, {cut} of them in a save, {time.monotonic() - started:.0f} s: equal bit for bit")


if __name__ == "__main__":
    main(*sys.argv[1:])
