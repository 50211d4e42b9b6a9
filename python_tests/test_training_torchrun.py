"""Training under torchrun: who writes and talks, a rank that is killed, a restart, a stop; each process's own GPU."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_runs import config, flat

from wgan_kernels.training import checkpoint, distributed
from wgan_kernels.training.cli import main, parse
from wgan_kernels.training.device import take_own_gpu
from wgan_kernels.training.errors import UsageError

pytest.importorskip("tyro", reason="the command line needs tyro")
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs Gloo")

ROOT = Path(__file__).parent.parent

SCRIPT = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from wgan_kernels.training import report, run
from wgan_kernels.training.cli import main
from wgan_kernels.training.trainer import Trainer

run.EVALUATED = 50
report.save_curves = lambda *arguments: None
iterate = Trainer.iterate

def killed(self, *arguments):
    first_time = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if os.environ.get("KILLED_AT") == str(self.iteration) and os.environ["RANK"] == "1" and first_time:
        os.kill(os.getpid(), signal.SIGKILL)
    return iterate(self, *arguments)

Trainer.iterate = killed
sys.exit(main())
"""
FLAGS = "--batch-size 4 --n-critic 2 --latent 8 --log-every 2 --sample-every 5 --eval-every 10 --checkpoint-every 5"
SMALL = ["--digits", "3", "--device", "cpu", *FLAGS.split()]


@contextmanager
def torchrun(folder, *arguments, restarts=0, **environment):
    script = folder / "train.py"
    script.write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    process = subprocess.Popen(
        [sys.executable, *launch, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"} | environment,
        cwd=folder,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()  # it ends its ranks


def finished(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 12 iterations that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    with torchrun(folder, *SMALL, "--iterations", 12, "--out", "run") as process:
        return folder / "run", *finished(process)


def test_rank_0_alone_writes_and_talks(whole):
    out, status, text, errors = whole
    assert status == 0, errors
    assert text.count("12 iterations on cpu in 2 processes, 1010 images") == 1
    assert text.count("classifier-FID") == 1
    assert [path.name for path in sorted((out / "samples").iterdir())] == [f"{n:06d}.png" for n in (0, 5, 10, 12)]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [2, 4, 6, 8, 10, 12]
    state, _ = checkpoint.newest(out / "checkpoints")
    assert state["trainer"]["iteration"] == 12
    assert len(state["trainer"]["random"]) == 2


def test_a_killed_rank_ends_all_with_a_message(tmp_path):
    started = time.monotonic()
    with torchrun(tmp_path, *SMALL, "--iterations", 12, "--out", "run", KILLED_AT="7") as process:
        status, _, errors = finished(process)
    assert status != 0
    assert "error: another rank has ended or does not answer" in errors
    assert re.search(r"rank +: 1 .*\n +exitcode +: -9 .*SIGKILL", errors)  # torchrun's report
    assert "[rank0]: Traceback" not in errors
    assert time.monotonic() - started < 60
    state, damaged = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert (state["trainer"]["iteration"], damaged) == (5, [])


def test_a_restart_goes_on_from_the_checkpoint_as_if_nothing_had_happened(tmp_path, whole):
    with torchrun(tmp_path, *SMALL, "--iterations", 12, "--out", "run", restarts=1, KILLED_AT="7") as process:
        status, text, errors = finished(process)
    assert status == 0, errors
    assert "12 iterations from iteration 5 on cpu in 2 processes" in text
    states = [checkpoint.newest(out / "checkpoints")[0]["trainer"] for out in (whole[0], tmp_path / "run")]
    expected, actual = map(flat, states)
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))


def test_sigterm_saves_once_and_a_run_goes_on_with_another_number_of_processes(tmp_path, capsys):
    arguments = [*SMALL, "--iterations", 10**6, "--checkpoint-every", 10**6, "--out", "run"]
    with torchrun(tmp_path, *arguments) as process:
        for line in process.stdout:
            if re.match(r"\d+/1000000", line):
                process.send_signal(signal.SIGTERM)
                break
        _, text, _ = finished(process)
    assert text.count("stopping") == 1
    (done,) = map(int, re.findall(r"saved at iteration (\d+); go on with: torchrun --nproc-per-node 2 ", text))
    out = tmp_path / "run"
    assert checkpoint.newest(out / "checkpoints")[0]["trainer"]["iteration"] == done
    assert main(["--out", str(out), "--resume", "--iterations", str(done + 1)]) == 0
    text = capsys.readouterr().out
    assert f"from iteration {done} on cpu" in text
    assert "number of processes than before: the random numbers start anew" in text


# --- what the command line makes of torchrun's environment -------------------------------------------------------


@pytest.fixture
def restarted(tmp_path, monkeypatch):
    """The folder of a run that the torchrun of this test began and that failed; no process is started for it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    state = {"config": config("wgan-gp", out).to_plain(), "job": distributed.job()}
    checkpoint.save(out / "checkpoints", 5, state, keep=1)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    return out


def test_a_restart_resumes_what_its_own_torchrun_began(restarted, monkeypatch):
    asked = ["--out", str(restarted), "--batch-size", "4"]
    assert parse(asked).resume
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not parse(asked).resume
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not parse(asked).resume  # somebody else's run in a folder that the first start refused


def test_a_restart_without_a_checkpoint_starts_anew(restarted):
    for path in (restarted / "checkpoints").iterdir():
        path.unlink()
    assert not parse(["--out", str(restarted)]).resume


def test_restarts_need_a_named_folder(restarted):
    with pytest.raises(UsageError, match="torchrun --max-restarts: add --out"):
        parse([])


def test_each_process_takes_the_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "local_rank", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    take_own_gpu("cpu")
    assert taken == []
    take_own_gpu("cuda")
    assert taken == [1]
    with pytest.raises(UsageError, match=r"--device cuda:0: .* leave the number out: --device cuda"):
        take_own_gpu("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="--nproc-per-node: this machine has 1 GPUs"):
        take_own_gpu("cuda")
