"""Training runs so small that a test can make several."""

from dataclasses import replace

import torch

from wgan_kernels.training import checkpoint
from wgan_kernels.training.presets import COMPACT

SMALL = {
    "batch_size": 4, "n_critic": 2, "latent": 8, "device": "cpu", "digits": (3,),
    "log_every": 2, "sample_every": 2, "eval_every": 4, "checkpoint_every": 4,
}  # fmt: skip
METHODS = ("wgan", "wgan-gp")


def config(method, out=None, **changes):
    return replace(COMPACT[method], **SMALL | {"out": out, "iterations": 12} | changes)


def flat(state) -> list[torch.Tensor]:
    """Every tensor in a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in flat(value)]
    if isinstance(state, (list, tuple)):
        return [tensor for value in state for tensor in flat(value)]
    return []


def saved(run) -> list[int]:
    """The iterations of the run's checkpoints."""
    return [int(path.stem) for path in checkpoint.saved(run.folder.checkpoints)]
