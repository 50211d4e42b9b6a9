"""Networks' weights as safetensors: nothing but tensors and a few words, for any program to read.

The words are JSON under one key: of several, safetensors writes the keys in an order that is another each time.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from . import atomic, models
from ._optional import optional
from .errors import UsageError

KEY = "wgan_kernels"


def export(network: nn.Module, path: Path, words: Mapping[str, object]) -> None:
    """Writes the state of ``network`` and ``words`` about it, atomically."""
    save = optional("safetensors.torch", "exporting weights").save
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    atomic.write(path, save(tensors, {KEY: json.dumps(words)}))


def load_generator(path: Path) -> nn.Module:
    """The generator that ``export`` wrote, in evaluation mode, on the CPU. Raises UsageError."""
    safe_open = optional("safetensors", "reading weights").safe_open
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            words = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except Exception as error:  # SafetensorError is an Exception and nothing nearer
        raise UsageError(f"{path} cannot be read as safetensors ({error}); name a generator.safetensors") from error
    if missing := [word for word in ("network", "latent", "shape") if word not in words]:
        raise UsageError(f"{path} does not say the generator's {missing[0]}; name a generator.safetensors of a run")
    return generator_of(tensors, words["network"], words["latent"], words["shape"], path)


def generator_of(
    state: Mapping[str, torch.Tensor], network: str, latent: int, shape: Sequence[int], source: Path
) -> nn.Module:
    """A generator with the weights ``state``, in evaluation mode. Raises UsageError where they belong to another."""
    generator = models.generator(network, latent, tuple(shape))
    try:
        generator.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{source} holds no weights of this generator: {reason}") from error
    return generator.eval().requires_grad_(False).to(memory_format=torch.channels_last)
