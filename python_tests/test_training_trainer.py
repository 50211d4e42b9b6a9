"""wgan_kernels.training.trainer: one iteration of either method, and what comes of it."""

import copy
import random

import pytest
import torch
from small_runs import METHODS, config, flat

import wgan_kernels as wk
from wgan_kernels.training import data
from wgan_kernels.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def threes():
    return data.embedded().only([3])


@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_changes_both_networks_and_reports_its_metrics(threes, method):
    trainer = Trainer(config(method), threes)
    before = [parameter.clone() for parameter in (*trainer.critic.parameters(), *trainer.generator.parameters())]
    metrics = trainer.iterate()
    after = [*trainer.critic.parameters(), *trainer.generator.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert set(metrics) == {"critic", "generator"} | ({"penalty"} if method == "wgan-gp" else set())
    assert trainer.iteration == 1


def test_alone_the_optimizers_have_no_hooks(threes):
    """They would only keep them out of CUDA graphs; what they do among ranks is in test_training_distributed.py."""
    trainer = Trainer(config("wgan-gp"), threes)
    for optimizer in (trainer.critic_optimizer, trainer.generator_optimizer):
        assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("method", METHODS)
def test_a_look_changes_nothing_and_adds_up(threes, method):
    trainer = Trainer(config(method), threes)
    trainer.iterate()
    before = [tensor.clone() for tensor in flat(trainer.state_dict())]
    seen = trainer.look()
    assert set(seen) == {"critic_real", "critic_fake", "wasserstein", "gradient_norm"}
    torch.testing.assert_close(seen["wasserstein"], seen["critic_real"] - seen["critic_fake"])
    assert all(torch.equal(a, b) for a, b in zip(before, flat(trainer.state_dict()), strict=True))


def test_a_look_at_a_batch_of_more_samples_than_a_forward_pass_makes(threes, monkeypatch):
    trainer = Trainer(config("wgan-gp"), threes)
    whole = trainer.look()
    monkeypatch.setattr("wgan_kernels.training.trainer.SAMPLES", 3)  # of a batch of 4
    parts = trainer.look()
    assert all(torch.allclose(parts[name], whole[name]) for name in whole)


def test_wgan_keeps_every_critic_parameter_within_the_bound(threes):
    trainer = Trainer(config("wgan", clip=0.003), threes)
    trainer.iterate()
    assert max(parameter.abs().max().item() for parameter in trainer.critic.parameters()) == pytest.approx(0.003)


def test_wgan_gp_trains_on_the_penalty_of_the_reference(threes):
    trainer = Trainer(config("wgan-gp", n_critic=1), threes)
    step, seen = trainer.critic_step, []

    def watched(real, fake):
        seen.append((copy.deepcopy(trainer.critic), trainer.random.clone_state(), real, fake))
        return step(real, fake)

    trainer.critic_step = watched
    metrics = trainer.iterate()
    ((critic, noise, real, fake),) = seen
    expected = wk.reference.gradient_penalty(critic, real, fake, generator=noise)
    torch.testing.assert_close(metrics["penalty"], expected.detach())
    scores = critic(fake).mean() - critic(real).mean()
    torch.testing.assert_close(metrics["critic"], (scores + 10 * expected).detach())


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
def test_all_randomness_is_the_trainers_own(threes, method):
    """Whatever others draw, or do not draw: the training neither sees it nor moves it."""
    import numpy

    first, second = Trainer(config(method), threes), Trainer(config(method), threes)
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), repr(numpy.random.get_state())
    for _ in range(3):
        first.iterate()
        first.look()
        list(first.sample(torch.zeros(2, 8)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), repr(numpy.random.get_state())) == before[1:]
    torch.manual_seed(2)
    for _ in range(3):
        second.iterate()
        torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(flat(first.state_dict()), flat(second.state_dict()), strict=True))
