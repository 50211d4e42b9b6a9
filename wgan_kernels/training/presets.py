"""The systems of the source documents and of the papers, with their own hyperparameters.

Each is a whole ``Config``: what differs from another is what is written here. docs/presets.md says where each value
comes from, where a document errs, and what we measured.
"""

from dataclasses import replace

from .config import Config

# Ours, for digits in minutes on a CPU: docs/training.md says how they were chosen.
COMPACT = {
    "wgan": Config(
        method="wgan", critic="compact-batch-norm", iterations=6000, optimizer="rmsprop", lr=5e-5, lr_end=1.0,
        ema_decay=0.998,
    ),
    "wgan-gp": Config(),
}  # fmt: skip

# What the documents have in common: the learning rate stays, pictures come from the generator as it is, in float32.
_DOCUMENT = replace(Config(), lr_end=1.0, ema_decay=0.0, optimizer="rmsprop", precision="float32")
_CLIPPED = replace(_DOCUMENT, method="wgan", lr=5e-5, clip=0.01)
_KERAS = {"alpha": 0.9}  # RMSprop's default there

# Arjovsky et al. 2017, algorithm 1 and their own code, as the notes tell it.
_ORIGINAL = replace(
    _CLIPPED, dataset="cifar10", iterations=100_000, latent=100, n_critic_schedule="original",
    sample_every=500, eval_every=1000, checkpoint_every=1000,
)  # fmt: skip
# Gulrajani et al. 2017 and their own code.
_PENALISED = replace(_DOCUMENT, method="wgan-gp", optimizer="adam", beta1=0.5, beta2=0.9, lr=1e-4, latent=128)
_LONG = {"sample_every": 500, "eval_every": 1000, "checkpoint_every": 1000}

PRESETS: dict[str, Config] = {
    "s0": replace(
        _CLIPPED, generator="s0", critic="s0", latent=50, batch_size=32, generator_batch_size=64,
        critic_batches="in-turn", clipped="convolutions", iterations=8000, **_KERAS,
    ),
    "s1-dcgan": replace(_ORIGINAL, generator="dcgan", critic="dcgan"),
    "s1-dcgan-plain": replace(_ORIGINAL, generator="dcgan-plain", critic="dcgan"),
    "s1-mlp": replace(_ORIGINAL, generator="mlp", critic="dcgan"),
    "s3-wgan": replace(
        _CLIPPED, generator="s3", critic="s3-batch-norm", latent=128, lr=1e-5, iterations=4000, **_KERAS
    ),
    "s3-wgan-gp": replace(
        _DOCUMENT, generator="s3", critic="s3-layer-norm", latent=128, lr=1e-4, iterations=1000, **_KERAS
    ),
    "wgan-gp-mnist": replace(
        _PENALISED, generator="wgan-gp-mnist", critic="wgan-gp-mnist", batch_size=50, iterations=200_000, **_LONG
    ),
    "wgan-gp-cifar10": replace(
        _PENALISED, dataset="cifar10", generator="resnet", critic="resnet", beta1=0.0, lr=2e-4, lr_end=0.0,
        generator_batch_size=128, iterations=100_000, **_LONG,
    ),
    "toy": replace(
        _PENALISED, dataset="8-gaussians", generator="toy-mlp", critic="toy-mlp", batch_size=256, latent=2,
        penalty_weight=0.1, iterations=100_000, **_LONG,
    ),
}  # fmt: skip
PRESETS = {name: replace(preset, preset=name) for name, preset in PRESETS.items()}


def defaults(method: str, preset: str) -> Config:
    """The settings that a command line begins with. The preset "compact" has its own for each method."""
    return COMPACT[method] if preset == "compact" else PRESETS[preset]
