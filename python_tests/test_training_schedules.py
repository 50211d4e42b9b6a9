"""wgan_kernels.training.schedules: what an iteration does by its number alone, and that the trainer does it."""

from dataclasses import replace

import pytest

import wgan_kernels as wk
from wgan_kernels.training import data
from wgan_kernels.training.config import Config
from wgan_kernels.training.schedules import critic_updates, critic_updates_before, is_penalised, learning_rate
from wgan_kernels.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

ORIGINAL = Config(n_critic_schedule="original")
SMALL = {"batch_size": 2, "n_critic": 3, "latent": 8, "device": "cpu", "digits": (3,), "iterations": 10}


@pytest.fixture(scope="module")
def threes():
    return data.embedded().only([3])


def test_the_original_schedule_is_that_of_the_authors_code():
    for gen_iterations in range(2001):
        diters = (
            100 if gen_iterations < 25 or gen_iterations % 500 == 0 else 5
        )  # main.py of martinarjovsky's WassersteinGAN
        assert critic_updates(ORIGINAL, gen_iterations) == diters
    assert {critic_updates(Config(), iteration) for iteration in range(2001)} == {5}


@pytest.mark.parametrize("config", [Config(), ORIGINAL, Config(n_critic=100), replace(ORIGINAL, n_critic=1)])
def test_the_number_of_updates_before_is_their_sum(config):
    done = 0
    for iteration in range(1600):
        assert critic_updates_before(config, iteration) == done
        done += critic_updates(config, iteration)


def test_the_learning_rate_falls_along_a_line():
    config = Config(lr=0.1, lr_end=0.2, iterations=4)
    assert [learning_rate(config, iteration) for iteration in range(5)] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])
    assert learning_rate(replace(config, lr_end=1.0), 3) == 0.1


@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_kth_update_has_the_penalty(k):
    assert [is_penalised(Config(penalty_every=k), update) for update in range(2 * k)] == [True, *[False] * (k - 1)] * 2


def test_the_trainer_follows_the_original_schedule(threes, monkeypatch):
    trainer = Trainer(replace(ORIGINAL, **SMALL), threes)
    passes, updates = [], []
    trainer.generator.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    step = trainer.critic_optimizer.step
    monkeypatch.setattr(trainer.critic_optimizer, "step", lambda: (updates.append(trainer.iteration), step()))
    trainer.iterate()
    trainer.iteration = 25
    trainer.iterate()
    assert (updates.count(0), updates.count(25)) == (100, 3)
    # Three batches a pass, whose statistics BatchNorm takes together, however many updates there are; then the step.
    assert passes == [6] * 33 + [2] + [2] + [6] + [2]


def test_a_lazy_penalty_is_weighted_by_its_interval(threes, monkeypatch):
    """Over the whole run: two iterations of three updates have the penalty in the updates 0, 2 and 4."""
    seen = []
    update = wk.CriticStep.__call__

    def noted(step, real, fake):
        seen.append(step.weight if step.penalty == "gp" else step.penalty)
        return update(step, real, fake)

    monkeypatch.setattr(wk.CriticStep, "__call__", noted)
    trainer = Trainer(replace(Config(penalty_every=2, penalty_weight=7.0), **SMALL), threes)
    names = [set(trainer.iterate()) for _ in range(2)]
    assert seen == [14.0, None, 14.0, None, 14.0, None]
    assert all("penalty" in found for found in names)
