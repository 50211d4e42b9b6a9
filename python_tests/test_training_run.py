"""wgan_kernels.training.run: stopping and going on, damaged checkpoints, a full disk."""

import os
import resource
import signal
from dataclasses import replace

import pytest
import torch
from small_runs import METHODS, config, flat, saved

from wgan_kernels.training import atomic, checkpoint, report, run
from wgan_kernels.training.config import Config
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.run import Run

pytest.importorskip("tyro", reason="the command line needs tyro")
pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def wholes(tmp_path_factory, quick_runs):
    """Of each method a run of 12 iterations that nothing disturbed."""
    runs = {method: Run(config(method, tmp_path_factory.mktemp("whole") / method)) for method in METHODS}
    for each in runs.values():
        assert each.train()
    return runs


def interrupt(run: Run, at: int) -> None:
    """Has Ctrl-C pressed while the iteration ``at`` is under way."""
    iterate = run.trainer.iterate

    def interrupted(*arguments):
        if run.trainer.iteration == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return iterate(*arguments)

    run.trainer.iterate = interrupted


def check_equal(run: Run, whole: Run) -> None:
    """The state, the logged rows and every picture, bit for bit; also as they are on the disk."""
    expected, got = flat(whole.trainer.state_dict()), flat(run.trainer.state_dict())
    assert len(expected) > 40
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    stored, _ = checkpoint.newest(run.folder.checkpoints)
    assert all(torch.equal(a, b) for a, b in zip(expected, flat(stored["trainer"]), strict=True))
    without_time = [[row | {"seconds": 0} for row in each.folder.rows()] for each in (run, whole)]
    assert without_time[0] == without_time[1]
    names = [path.relative_to(whole.config.out) for path in (*whole.folder.frames(), whole.folder.film)]
    names += [whole.folder.generator.name, whole.folder.critic.name]
    for name in names:
        assert (whole.config.out / name).read_bytes() == (run.config.out / name).read_bytes(), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("long", [False, True], ids=["between", "within"])
def test_n_and_n_iterations_equal_two_n(tmp_path, monkeypatch, wholes, method, long):
    """Stopped between two iterations, or within one, if they are long."""
    monkeypatch.setattr(run, "PATIENCE", 0.0 if long else 60.0)
    first = Run(config(method, tmp_path / "parts"))
    interrupt(first, at=5)  # a multiple of neither log_every nor sample_every
    assert not first.train()
    second = Run(config(method, tmp_path / "parts", resume=True))
    assert second.trainer.iteration == (4 if long else 5)
    assert second.train()
    check_equal(second, wholes[method])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("method", METHODS)
def test_n_and_n_iterations_equal_two_n_on_a_gpu_in_deterministic_mode(tmp_path, monkeypatch, method):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        whole = Run(config(method, tmp_path / "whole", device="cuda", deterministic=True))
        assert whole.train()
        first = Run(config(method, tmp_path / "parts", device="cuda", deterministic=True))
        interrupt(first, at=5)
        assert not first.train()
        second = Run(replace(first.config, resume=True))
        assert second.train()
        check_equal(second, whole)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_stop_in_a_long_iteration_waits_for_one_update_only(tmp_path, monkeypatch):
    stopped = Run(config("wgan-gp", tmp_path / "run", n_critic=50))
    interrupt(stopped, at=1)  # the first may always be a long one
    seen = []
    step = stopped.trainer.critic_step
    stopped.trainer.critic_step = lambda *arguments: seen.append(0) or step(*arguments)
    assert not stopped.train()
    assert len(seen) == 0
    assert saved(stopped) == [0]


@pytest.mark.parametrize("at", [8, 12])
def test_a_stop_breaks_an_evaluation_off_and_a_resumed_run_makes_it(tmp_path, wholes, at):
    stopped = Run(config("wgan-gp", tmp_path / "run"))
    sample, parts = stopped.trainer.sample, []

    def interrupting(latent):
        for images in sample(latent):
            if stopped.trainer.iteration == at and len(latent) == run.EVALUATED:
                parts.append(images)
                os.kill(os.getpid(), signal.SIGTERM)
            yield images

    stopped.trainer.sample = interrupting
    assert not stopped.train()
    assert len(parts) == 1
    assert saved(stopped)[-1] == at
    assert [row["iteration"] for row in stopped.folder.rows()] == list(range(2, at, 2))
    resumed = Run(replace(stopped.config, resume=True))
    assert resumed.train()
    check_equal(resumed, wholes["wgan-gp"])


def test_a_run_that_was_killed_over_its_report_writes_it_when_resumed(tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    begun = Run(config("wgan", tmp_path / "run", iterations=4))
    monkeypatch.setattr(report, "save_film", killed)
    with pytest.raises(KeyboardInterrupt):
        begun.train()
    assert not begun.folder.generator.exists()
    monkeypatch.undo()
    monkeypatch.setattr(report, "save_curves", lambda *arguments: None)
    resumed = Run(replace(begun.config, resume=True))
    resumed.trainer.iterate = None  # nothing is left to train
    assert resumed.train()
    assert resumed.folder.film.exists()
    with pytest.raises(UsageError, match=r"--iterations 4: .* has done 4 already"):
        Run(replace(begun.config, resume=True))


def test_a_second_signal_stops_at_once_and_harms_nothing(tmp_path):
    stopped = Run(config("wgan", tmp_path / "run"))
    iterate = stopped.trainer.iterate

    def twice(*arguments):
        if stopped.trainer.iteration == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(*arguments)

    stopped.trainer.iterate = twice
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert saved(stopped) == [0, 4]
    assert Run(replace(stopped.config, resume=True)).trainer.iteration == 4


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1000], lambda content: content[:5000] + b"?" + content[5001:]]
)
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_used(tmp_path, capsys, wholes, damage):
    begun = Run(config("wgan-gp", tmp_path / "run"))
    interrupt(begun, at=10)
    assert not begun.train()
    assert saved(begun) == [4, 8, 10]
    for iteration in (8, 10):
        path = begun.folder.checkpoints / f"{iteration:06d}.pt"
        path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    resumed = Run(replace(begun.config, resume=True))
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(" is damaged")[0] for line in warnings] == [
        f"warning: {begun.folder.checkpoints / name}" for name in ("000010.pt", "000008.pt")
    ]
    assert all(line.endswith("going on from iteration 4 instead") for line in warnings)
    assert resumed.train()
    check_equal(resumed, wholes["wgan-gp"])
    assert saved(resumed) == [4, 8, 12]
    assert {path.name for path in resumed.folder.checkpoints.glob("*.damaged")} == {
        "000008.pt.damaged", "000010.pt.damaged"
    }  # fmt: skip


@pytest.fixture
def room():
    """room(n): no file may grow beyond n bytes, as if the disk were full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_what_was_saved_is_kept(tmp_path, wholes, room):
    begun = Run(config("wgan-gp", tmp_path / "run"))
    iterate = begun.trainer.iterate

    def filling(*arguments):
        if begun.trainer.iteration == 6:
            room(1_000_000)
        return iterate(*arguments)

    begun.trainer.iterate = filling
    with pytest.raises(UsageError, match=r"000008\.pt cannot be written \(File too large\).*with --resume"):
        begun.train()
    assert saved(begun) == [0, 4]
    assert [path for path in begun.config.out.rglob("*") if path.suffix == ".tmp"] == []
    room(resource.RLIM_INFINITY)
    resumed = Run(replace(begun.config, resume=True))
    assert resumed.train()
    check_equal(resumed, wholes["wgan-gp"])


def test_no_room_for_a_row_of_figures(tmp_path, room):
    begun = Run(config("wgan-gp", tmp_path / "run", sample_every=100, checkpoint_every=100))
    iterate = begun.trainer.iterate

    def filling(*arguments):
        if begun.trainer.iteration == 3:
            room(begun.folder.metrics.stat().st_size + 10)
        return iterate(*arguments)

    begun.trainer.iterate = filling
    with pytest.raises(UsageError, match=r"metrics\.jsonl cannot be written \(File too large\)"):
        begun.train()
    room(resource.RLIM_INFINITY)
    assert [row["iteration"] for row in begun.folder.rows()] == [2]  # the ten bytes of the next are no row
    resumed = Run(replace(begun.config, resume=True, iterations=4))
    assert resumed.train()
    assert [row["iteration"] for row in resumed.folder.rows()] == [2, 4]


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    out = tmp_path / "run"
    (out / "samples").mkdir(parents=True)
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / ".000000.pt.7.tmp").write_bytes(b"half")
    with pytest.raises(UsageError, match="leave --resume out to start a new run"):
        Run(config("wgan", out, iterations=2, resume=True))
    begun = Run(config("wgan", out, iterations=2))
    assert begun.train()
    assert saved(begun) == [0, 2]
    assert atomic.leftovers(begun.folder.checkpoints) == []


def test_what_was_written_after_the_checkpoint_is_written_once(tmp_path):
    begun = Run(config("wgan", tmp_path / "run", iterations=4))
    begun.train()
    for iteration in (6, 8):  # as if killed at 8
        begun.folder.append({"iteration": iteration, "wasserstein": 0.0})
        begun.folder.frame(iteration).write_bytes(b"")
    with begun.folder.metrics.open("a") as file:
        file.write('{"iteration": 10, "wass')
    for folder in (begun.folder.checkpoints, begun.folder.samples, begun.folder.path):
        (folder / ".000008.pt.123.tmp").write_bytes(b"half")
    resumed = Run(replace(begun.config, resume=True, iterations=8))
    resumed.train()
    assert [row["iteration"] for row in resumed.folder.rows()] == [2, 4, 6, 8]
    assert resumed.folder.rows()[2]["wasserstein"] != 0.0
    assert Config.from_yaml(resumed.folder.config.read_text()) == replace(begun.config, iterations=8)
    assert resumed.folder.frame(8).stat().st_size > 0
    assert sorted(path.name for path in resumed.folder.checkpoints.iterdir()) == ["000000.pt", "000004.pt", "000008.pt"]
    assert [path for path in begun.config.out.rglob("*") if path.suffix == ".tmp"] == []
