"""wgan_kernels.training.presets: the documents' own settings, and that each of them trains."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from wgan_kernels.training import data
from wgan_kernels.training.config import Config
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.in_turn import InTurnStep
from wgan_kernels.training.networks import critic_optimizer, networks
from wgan_kernels.training.presets import PRESETS
from wgan_kernels.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

# As the documents and papers have them, read from those and not from the presets.
DOCUMENTS = {
    "s0": {
        "method": "wgan", "latent": 50, "optimizer": "rmsprop", "lr": 5e-5, "clip": 0.01, "clipped": "convolutions",
        "n_critic": 5, "batch_size": 32, "generator_batch_size": 64, "critic_batches": "in-turn", "dataset": "mnist",
    },
    "s1-dcgan": {
        "method": "wgan", "optimizer": "rmsprop", "lr": 5e-5, "clip": 0.01, "clipped": "all", "n_critic": 5,
        "n_critic_schedule": "original", "batch_size": 64, "generator_batch_size": None, "critic_batches": "joint",
    },
    "s3-wgan": {
        "method": "wgan", "latent": 128, "batch_size": 64, "n_critic": 5, "optimizer": "rmsprop", "lr": 1e-5,
        "clip": 0.01, "clipped": "all", "iterations": 4000, "critic": "s3-batch-norm",
    },
    "s3-wgan-gp": {
        "method": "wgan-gp", "latent": 128, "batch_size": 64, "n_critic": 5, "optimizer": "rmsprop", "lr": 1e-4,
        "penalty_weight": 10.0, "iterations": 1000, "critic": "s3-layer-norm",
    },
    "wgan-gp-mnist": {
        "method": "wgan-gp", "batch_size": 50, "optimizer": "adam", "lr": 1e-4, "beta1": 0.5, "beta2": 0.9,
        "penalty_weight": 10.0, "n_critic": 5, "dataset": "mnist",
    },
    "wgan-gp-cifar10": {
        "method": "wgan-gp", "optimizer": "adam", "lr": 2e-4, "beta1": 0.0, "beta2": 0.9, "lr_end": 0.0,
        "generator_batch_size": 128, "batch_size": 64, "n_critic": 5, "iterations": 100_000, "dataset": "cifar10",
    },
    "toy": {
        "method": "wgan-gp", "optimizer": "adam", "lr": 1e-4, "beta1": 0.5, "beta2": 0.9, "penalty_weight": 0.1,
        "batch_size": 256, "n_critic": 5, "dataset": "8-gaussians",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_presets_are_the_documents(name):
    assert {field: getattr(PRESETS[name], field) for field in DOCUMENTS[name]} == DOCUMENTS[name]


def test_no_document_averages_the_generators_weights():
    assert {preset.ema_decay for preset in PRESETS.values()} == {0.0}


def samples_of(dataset):
    """A data set of the right kind, without its files."""
    if dataset == "mnist":
        return data.embedded().only([3])
    if dataset == "cifar10":
        pixels = torch.randint(256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        return data.Images(pixels, torch.zeros(8, dtype=torch.int64))
    return data.load(dataset, None, 64)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains(name):
    """Two iterations of few images: both networks move, all stays finite, and samples have the data's shape."""
    small = {"batch_size": 4, "generator_batch_size": 4, "n_critic": 1, "n_critic_schedule": "constant"}
    config = replace(PRESETS[name], **small, device="cpu")
    samples = samples_of(config.dataset)
    trainer = Trainer(config, samples)
    before = [parameter.clone() for parameter in (*trainer.critic.parameters(), *trainer.generator.parameters())]
    losses = [trainer.iterate() for _ in range(2)]
    after = [*trainer.critic.parameters(), *trainer.generator.parameters()]
    moved = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
    assert sum(moved) >= 0.8 * len(moved)  # a constant that BatchNorm takes away again does not
    assert trainer.is_finite() and all(bool(torch.isfinite(loss)) for row in losses for loss in row.values())
    (drawn,) = trainer.sample(torch.randn(6, config.latent))
    assert drawn.shape == (6, *samples.shape)
    # without an average, the samples are those of the generator itself
    trained = trainer.generator.eval()(torch.ones(2, config.latent))
    torch.testing.assert_close(trainer.ema(torch.ones(2, config.latent)), trained)


def test_only_the_kernels_of_the_convolutions_are_clamped():
    config = replace(PRESETS["s0"], device="cpu", clip=0.005)
    _, critic = networks(config, (1, 28, 28))
    optimizer = critic_optimizer(config, critic)
    for param in critic.parameters():
        param.grad = torch.zeros_like(param)
        param.data.fill_(0.5)
    optimizer.step()
    kernels = [module.weight for module in critic.modules() if isinstance(module, nn.Conv2d)]
    clamped = [param for param in critic.parameters() if param.abs().max() <= 0.005]
    assert len(kernels) == 2
    assert {id(param) for param in clamped} == {id(kernel) for kernel in kernels}
    free = [param for param in critic.parameters() if id(param) not in {id(kernel) for kernel in kernels}]
    assert all(torch.equal(param, torch.full_like(param, 0.5)) for param in free)


def test_two_updates_in_turn_are_those_of_the_notebooks_loop():
    config = replace(PRESETS["s0"], device="cpu")
    _, critic = networks(config, (1, 28, 28))
    critic = critic.double()  # gradients of the biases below BatchNorm are rounding alone, which RMSprop scales up
    plain = copy.deepcopy(critic)
    step = InTurnStep(critic, critic_optimizer(config, critic))
    optimizer = torch.optim.RMSprop(plain.parameters(), 5e-5, alpha=0.9)
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        real, fake = (torch.randn(4, 1, 28, 28, generator=random, dtype=torch.float64) for _ in range(2))
        losses = []
        for images, label in ((real, -1), (fake, 1)):
            loss = (label * plain(images)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for module in plain.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.data.clamp_(-0.01, 0.01)
            losses.append(loss.item())
        metrics = step(real, fake)
        assert metrics["loss"].item() == pytest.approx(sum(losses), abs=1e-12)
    torch.testing.assert_close(list(critic.parameters()), list(plain.parameters()), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"critic": "s0"}, "--critic s0: has BatchNorm"),
        (
            {"method": "wgan", "critic": "mlp", "clipped": "convolutions"},
            "--clipped convolutions: --critic mlp has none",
        ),
        ({"generator": "toy-mlp"}, "--generator toy-mlp: is for points"),
        ({"critic": "toy-mlp"}, "--critic toy-mlp: is for points"),
    ],
)
def test_networks_that_do_not_suit_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        Trainer(replace(Config(device="cpu"), **changes), data.embedded())
