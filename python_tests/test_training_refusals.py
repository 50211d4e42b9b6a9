"""wgan_kernels.training.run: what a run refuses, and what it leaves in its folder."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from small_runs import config, saved

from wgan_kernels.training import report, weights
from wgan_kernels.training.data import mnist as files
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.run import Diverged, Run

pytest.importorskip("tyro", reason="the command line needs tyro")
pytestmark = pytest.mark.usefixtures("quick_runs")


def test_a_damaged_row_is_named_and_left_out(tmp_path, capsys):
    begun = Run(config("wgan", tmp_path / "run", iterations=6))
    begun.train()
    first, second, third = begun.folder.metrics.read_bytes().splitlines(keepends=True)
    begun.folder.metrics.write_bytes(first + second[:20] + b"\xff\0\n" + third)
    assert [row["iteration"] for row in begun.folder.rows()] == [2, 6]
    assert "line 2 is damaged" in capsys.readouterr().err


def test_the_generators_average_is_exported(tmp_path):
    begun = Run(config("wgan-gp", tmp_path / "run", iterations=2))
    begun.train()
    generator = weights.load_generator(begun.folder.generator)
    (expected,) = begun.trainer.sample(begun.pictured)
    assert torch.equal(generator(begun.pictured), expected)
    from safetensors.torch import load_file

    stored = load_file(begun.folder.critic)
    assert all(torch.equal(stored[name], tensor) for name, tensor in begun.trainer.critic.state_dict().items())


def test_a_resumed_run_with_other_settings_or_data_is_refused(tmp_path):
    begun = Run(config("wgan", tmp_path / "run", iterations=2))
    begun.train()
    asked = replace(begun.config, resume=True, iterations=4)
    with pytest.raises(UsageError, match=r"--batch-size 5: the run .* was started with 4"):
        Run(replace(asked, batch_size=5))
    with pytest.raises(UsageError, match=r"--iterations 2: .* has done 2 already"):
        Run(replace(asked, iterations=2))
    mnist = tmp_path / "mnist"
    mnist.mkdir()
    threes = begun.data.images[:10, 0].clone()
    header = bytes((0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28))
    (mnist / files.IMAGES["train"]).write_bytes(header + threes.numpy().tobytes())
    (mnist / files.LABELS["train"]).write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 10)) + bytes([3] * 10))
    with pytest.raises(UsageError, match=r"--data .*not the data"):
        Run(replace(asked, data=mnist))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    diverging = Run(config("wgan-gp", tmp_path / "run", iterations=100))
    iterate = diverging.trainer.iterate

    def broken(*arguments):
        metrics = iterate(*arguments)
        if diverging.trainer.iteration == 6:
            torch.nn.init.constant_(next(diverging.trainer.critic.parameters()), float("nan"))
            metrics["wasserstein"] = torch.tensor(float("nan"))
        return metrics

    diverging.trainer.iterate = broken
    with pytest.raises(Diverged, match="wasserstein is nan at iteration 6"):
        diverging.train()
    resumed = Run(replace(diverging.config, resume=True))
    assert resumed.trainer.iteration == 4
    assert resumed.trainer.is_finite()


def test_weights_that_are_no_numbers_are_never_saved(tmp_path):
    diverging = Run(config("wgan-gp", tmp_path / "run", iterations=5, log_every=1000, eval_every=1000))
    iterate = diverging.trainer.iterate

    def broken(*arguments):
        torch.nn.init.constant_(diverging.trainer.generator.project.weight, float("inf"))
        return iterate(*arguments)

    diverging.trainer.iterate = broken
    with pytest.raises(Diverged, match="a weight is not finite at iteration 4"):
        diverging.train()
    assert saved(diverging) == [0]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    """The lock goes with the process that has it, even if it is killed; a run that is over leaves none."""
    begun = Run(config("wgan", tmp_path / "run", iterations=2))
    begun.train()
    resumed = Run(replace(begun.config, resume=True, iterations=4))
    before = {path: path.stat().st_mtime_ns for path in begun.folder.path.rglob("*")}
    code = f"""
from pathlib import Path
from wgan_kernels.training.folder import RunFolder
with RunFolder(Path({str(begun.folder.path)!r})).alone():
    print("locked", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(UsageError, match=r"--out .* another process is training there"):
            resumed.train()
        other.kill()
    assert {path: path.stat().st_mtime_ns for path in begun.folder.path.rglob("*")} == before
    assert resumed.train()
    assert saved(resumed)[-1] == 4


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_overtook_leaves_its_files_alone(tmp_path, resume):
    """Both have looked into the folder; one trains to its end before the other takes the lock."""
    asked = config("wgan", tmp_path / "run", iterations=2)
    if resume:
        assert Run(asked).train()
        asked = replace(asked, resume=True, iterations=4)
    slow, fast = Run(asked), Run(asked)
    assert fast.train()
    before = {path: path.read_bytes() for path in asked.out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"--out .* another process has trained there meanwhile.*--resume"):
        slow.train()
    assert {path: path.read_bytes() for path in asked.out.rglob("*") if path.is_file()} == before


def test_samples_that_are_no_numbers_are_not_judged(tmp_path):
    diverging = Run(config("wgan-gp", tmp_path / "run", iterations=5, eval_every=2))
    diverging.evaluated.fill_(float("nan"))
    with pytest.raises(Diverged, match=r"samples: expected finite numbers, .* at iteration 2"):
        diverging.train()
    assert saved(diverging) == [0]


def test_the_clock_stops_a_run_as_if_it_had_ended(tmp_path):
    limited = Run(config("wgan", tmp_path / "run", iterations=10**9, time_limit=1e-9))
    assert limited.train()
    assert limited.trainer.iteration == 1
    assert limited.folder.film.exists()
    assert saved(limited) == [0, 1]
    with pytest.raises(UsageError, match=r"--time-limit .* has taken that long already"):
        Run(replace(limited.config, resume=True))


def test_the_grid_holds_the_images_in_reading_order():
    images = torch.full((100, 1, 28, 28), -1.0)
    images[12] = 1.0
    sheet = report.grid(images)
    assert sheet.shape == (report.SCALE * (10 * 29 - 1),) * 2
    white = (sheet == 255).nonzero()
    assert (white.min(0).values // report.SCALE).tolist() == [1 * 29, 2 * 29]
    assert len(white) == (28 * report.SCALE) ** 2
