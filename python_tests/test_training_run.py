"""wgan_kernels.training: one iteration, stopping and going on, a loss that is no number."""

import os
import signal
from dataclasses import replace

import pytest
import torch

import wgan_kernels as wk
from wgan_kernels.training import data, report, run
from wgan_kernels.training.config import Config
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.run import Diverged, Run
from wgan_kernels.training.trainer import Trainer

pytest.importorskip("tyro", reason="the command line needs tyro")

SMALL = {
    "batch_size": 4, "n_critic": 2, "latent": 8, "device": "cpu", "digits": (3,),
    "log_every": 2, "sample_every": 2, "eval_every": 4, "checkpoint_every": 4,
}  # fmt: skip
METHODS = ("wgan", "wgan-gp")


@pytest.fixture(scope="module")
def threes():
    return data.embedded().only([3])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(run, "EVALUATED", 50)
    monkeypatch.setattr(report, "save_curves", lambda *arguments: None)  # a second each; test_train_mnist.py has them
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches of 4 gain nothing from more, and lose much where other processes run
    yield
    torch.set_num_threads(threads)


def config(method, out=None, **changes):
    return replace(Config.of(method), **SMALL | {"out": out} | changes)


def flat(state) -> list[torch.Tensor]:
    """Every tensor in a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in flat(value)]
    if isinstance(state, (list, tuple)):
        return [tensor for value in state for tensor in flat(value)]
    return []


def interrupt(run: Run, at: int) -> None:
    """Has Ctrl-C pressed while the iteration ``at`` is under way."""
    iterate = run.trainer.iterate

    def interrupted():
        if run.trainer.iteration == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return iterate()

    run.trainer.iterate = interrupted


@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_changes_both_networks_and_reports_its_metrics(threes, method):
    trainer = Trainer(config(method), threes)
    before = [parameter.clone() for parameter in (*trainer.critic.parameters(), *trainer.generator.parameters())]
    metrics = trainer.iterate()
    after = [*trainer.critic.parameters(), *trainer.generator.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    expected = {"critic_real", "critic_fake", "wasserstein", "generator"} | (
        {"penalty"} if method == "wgan-gp" else set()
    )
    assert set(metrics) == expected
    torch.testing.assert_close(metrics["wasserstein"], metrics["critic_real"] - metrics["critic_fake"])


def test_wgan_keeps_every_critic_parameter_within_the_bound(threes):
    trainer = Trainer(config("wgan", clip=0.003), threes)
    trainer.iterate()
    assert max(parameter.abs().max().item() for parameter in trainer.critic.parameters()) == pytest.approx(0.003)


def test_wgan_gp_trains_on_the_penalty_of_the_public_function(threes, monkeypatch):
    seen = []

    def penalty(critic, real, fake, **options):
        seen.append((real.shape, fake.shape))
        return gradient_penalty(critic, real, fake, **options)

    gradient_penalty = wk.gradient_penalty
    monkeypatch.setattr(wk, "gradient_penalty", penalty)
    Trainer(config("wgan-gp"), threes).iterate()
    assert seen == [((4, 1, 28, 28), (4, 1, 28, 28))] * 2


def test_samples_come_from_the_average_in_evaluation_mode(threes):
    trainer = Trainer(config("wgan-gp"), threes)
    for _ in range(3):
        trainer.iterate()
    latent = torch.randn(7, 8)
    (images,) = trainer.sample(latent)
    assert images.shape == (7, 1, 28, 28)
    assert images.abs().max() <= 1
    (alone,) = trainer.sample(latent[:1])
    torch.testing.assert_close(alone, images[:1])
    assert not torch.allclose(trainer.generator.eval()(latent), images)


def test_the_learning_rate_falls_along_a_line(threes):
    trainer = Trainer(config("wgan-gp", iterations=4, lr=0.1, lr_end=0.2), threes)
    seen = []
    for _ in range(4):
        trainer.iterate()
        seen += [group["lr"] for group in trainer.critic_optimizer.param_groups]
    assert seen == pytest.approx([0.1, 0.08, 0.06, 0.04])
    assert trainer.generator_optimizer.param_groups[0]["lr"] == seen[-1]


def test_the_average_forgets_the_beginning_quickly_and_later_slowly(threes):
    trainer = Trainer(config("wgan-gp", ema_decay=0.15), threes)
    weights = []
    for _ in range(3):
        trainer.iterate()
        weights.append(trainer.generator.project.weight.detach().clone())
    expected = weights[0].lerp(weights[1], 1 - 0.15)  # min(0.15, 2 / 11) = 0.15
    expected = expected.lerp(weights[2], 1 - 0.15)
    torch.testing.assert_close(trainer.ema.module.project.weight, expected)
    slow = Trainer(config("wgan-gp", ema_decay=0.999), threes)
    slow.iterate()
    first = slow.generator.project.weight.detach().clone()
    slow.iterate()
    torch.testing.assert_close(slow.ema.module.project.weight, first.lerp(slow.generator.project.weight, 1 - 2 / 11))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_stay_float32(threes, precision):
    trainer = Trainer(config("wgan-gp", precision=precision), threes)
    metrics = trainer.iterate()
    assert {parameter.dtype for parameter in trainer.critic.parameters()} == {torch.float32}
    assert {value.dtype for value in metrics.values()} == {torch.float32}
    assert trainer.is_finite()


@pytest.mark.parametrize("method", METHODS)
def test_n_and_n_iterations_equal_two_n(tmp_path, method):
    whole = Run(config(method, tmp_path / "whole", iterations=12))
    assert whole.train()
    first = Run(config(method, tmp_path / "parts", iterations=12))
    interrupt(first, at=5)  # a multiple of neither log_every nor sample_every
    assert not first.train()
    second = Run(config(method, tmp_path / "parts", iterations=12, resume=True))
    assert second.trainer.iteration == 5
    assert second.train()

    expected, got = flat(whole.trainer.state_dict()), flat(second.trainer.state_dict())
    assert len(expected) > 40
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    rows = {row["iteration"]: row for row in whole.folder.rows()}
    resumed = second.folder.rows()
    assert [row["iteration"] for row in resumed] == list(rows)
    for row in resumed:
        assert row | {"seconds": 0} == rows[row["iteration"]] | {"seconds": 0}
    for name in ("samples/000012.png", "samples/000000.png"):
        assert (whole.config.out / name).read_bytes() == (second.config.out / name).read_bytes()


def test_what_was_written_after_the_checkpoint_is_written_once(tmp_path):
    begun = Run(config("wgan", tmp_path / "run", iterations=4))
    begun.train()
    for iteration in (6, 8):  # as if killed at 8
        begun.folder.append({"iteration": iteration, "wasserstein": 0.0})
        begun.folder.frame(iteration).write_bytes(b"")
    with begun.folder.metrics.open("a") as file:
        file.write('{"iteration": 10, "wass')
    (begun.folder.checkpoints / ".last.pt.123.tmp").write_bytes(b"half")
    resumed = Run(replace(begun.config, resume=True, iterations=8))
    resumed.train()
    assert [row["iteration"] for row in resumed.folder.rows()] == [2, 4, 6, 8]
    assert resumed.folder.rows()[2]["wasserstein"] != 0.0
    assert Config.from_yaml(resumed.folder.config.read_text()) == replace(begun.config, iterations=8)
    assert resumed.folder.frame(8).stat().st_size > 0
    assert [path.name for path in resumed.folder.checkpoints.iterdir()] == ["last.pt"]


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
    threes = begun.digits.images[:10, 0].clone()
    header = bytes((0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28))
    (mnist / data.IMAGES["train"]).write_bytes(header + threes.numpy().tobytes())
    (mnist / data.LABELS["train"]).write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 10)) + bytes([3] * 10))
    with pytest.raises(UsageError, match=r"--data .*not the images"):
        Run(replace(asked, data=mnist))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    diverging = Run(config("wgan-gp", tmp_path / "run", iterations=100))
    iterate = diverging.trainer.iterate

    def broken():
        metrics = iterate()
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
    torch.nn.init.constant_(diverging.trainer.generator.project.weight, float("inf"))
    with pytest.raises(Diverged, match="a weight is not finite at iteration 4"):
        diverging.train()
    assert not diverging.folder.checkpoint.exists()


def test_the_clock_stops_a_run_as_if_it_had_ended(tmp_path):
    limited = Run(config("wgan", tmp_path / "run", iterations=10**9, time_limit=1e-9))
    assert limited.train()
    assert limited.trainer.iteration == 1
    assert limited.folder.film.exists()
    assert limited.folder.checkpoint.exists()


def test_the_grid_holds_the_images_in_reading_order():
    images = torch.full((100, 1, 28, 28), -1.0)
    images[12] = 1.0
    sheet = report.grid(images)
    assert sheet.shape == (report.SCALE * (10 * 29 - 1),) * 2
    white = (sheet == 255).nonzero()
    assert (white.min(0).values // report.SCALE).tolist() == [1 * 29, 2 * 29]
    assert len(white) == (28 * report.SCALE) ** 2
