"""What the documents' experiments share: flags, the training of critic and discriminator, a figure and its record."""

import json
import math
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from script import check_flags
from torch import nn
from torch.nn.functional import softplus
from turns import perceptron

import wgan_kernels as wk
from wgan_kernels.training import atomic
from wgan_kernels.training._optional import optional
from wgan_kernels.training.errors import UsageError

# One colour for each thing, in every figure. A line is known exactly, a dot is found by a network.
REAL, MODEL, CRITIC, JS, KL, CROSS_ENTROPY, EXACT = "C0", "C1", "C3", "C4", "C2", "C5", "0.25"

Draw = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
"""How many → samples of the real distribution and of the model's, [B, …] each."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of every experiment."""

    out: Path
    """The figure to write (PNG); what was measured goes beside it (JSON). Files of these names are replaced."""
    steps: int
    """Updates of each critic and discriminator."""
    batch_size: int = 256
    """Samples of either distribution in an update."""
    width: int = 64
    """Of the two hidden layers."""
    lr: float = 5e-3
    """Of Adam, at first; it falls to 0 along a cosine."""
    weight: float = 40.0
    """λ of the one-sided penalty, with inputs in units of their spread."""
    seed: int = 0
    """Of weights and samples."""
    threads: int = 1
    """Of PyTorch: networks of this size gain nothing by more."""

    def check(self) -> None:
        """Raises UsageError on a value out of range."""
        check_flags(self, {"steps": 10, "batch_size": 2, "width": 1, "threads": 1})
        if not 0 < self.lr < 1:
            raise UsageError(f"--lr {self.lr}: expected a number between 0 and 1")
        if not 0 < self.weight < float("inf"):
            raise UsageError(f"--weight {self.weight}: expected a number above 0")


def network(inputs: int, width: int) -> nn.Sequential:
    """A critic or discriminator, [B, inputs] → [B, 1]. Its kinks are sharp, as those of the best critic are."""
    return perceptron(inputs, width, width, 1, activation=nn.LeakyReLU)


def train_critic(critic: nn.Module, draw: Draw, options: Options, *, penalty: str = "one-sided") -> Iterator[int]:
    """Yields the number of each update, after it.

    The penalised optimum between two points W apart has the slope 1 + W ÷ 2λ, so that mean f(real) − mean f(fake) is
    that much above W₁; over the steepest slope it is at most W₁, whatever the critic (Kantorovich and Rubinstein).
    """
    optimizer = adam(critic, options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    update = wk.CriticStep(critic, optimizer, penalty, options.weight, tune=False)  # the same numbers every time
    for step in range(1, options.steps + 1):
        update(*draw(options.batch_size))
        schedule.step()
        yield step


def train_discriminator(discriminator: nn.Module, draw: Draw, options: Options) -> Iterator[int]:
    """Yields the number of each update, after it. Loss: that of classification, real as 1; the output is a logit."""
    optimizer = adam(discriminator, options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    for step in range(1, options.steps + 1):
        discriminator_update(discriminator, optimizer, *draw(options.batch_size))
        schedule.step()
        yield step


def discriminator_update(discriminator, optimizer, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Returns the loss before it, 0-d."""
    loss = softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def adam(module: nn.Module, lr: float) -> torch.optim.Optimizer:
    return wk.optim.Adam(module.parameters(), lr=lr, betas=(0.0, 0.9))


def jensen_shannon(of_real: torch.Tensor, of_fake: torch.Tensor) -> torch.Tensor:
    """log 2 + ½ E log D(x_r) + ½ E log(1 − D(x_f)), of logits: JS if the discriminator is the best, less otherwise."""
    return math.log(2) - (softplus(-of_real).mean() + softplus(of_fake).mean()) / 2


def steepest(critic: nn.Module, points: torch.Tensor) -> float:
    """max ‖∇f‖ at points [B, d]."""
    points = points.detach().requires_grad_()
    return torch.autograd.grad(critic(points).sum(), points)[0].norm(dim=1).max().item()


def panels(rows: int, columns: int):
    """(figure, axes [rows, columns])."""
    optional("matplotlib", "writing the figure").use("Agg")
    pyplot = optional("matplotlib.pyplot", "writing the figure")
    size = (4.2 * columns, 3.8 * rows)
    return pyplot.subplots(rows, columns, figsize=size, constrained_layout=True, squeeze=False)


def save(drawn, options, measured: Mapping[str, object], sentences: Sequence[str], device: str = "cpu") -> None:
    """Writes the figure and its record, and prints what was measured.

    Args:
        drawn: a matplotlib figure.
        options: of the run, with ``out`` and ``threads``; they go into the record.
        measured: every number that the sentences tell, by name.
        sentences: what was measured, for the terminal and the gallery.
        device: on which.
    """
    settings = {name: value for name, value in asdict(options).items() if name != "out"}
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    place = threads if device == "cpu" else torch.cuda.get_device_name(device)
    where = f"{place}, {platform.system()} {platform.machine()}, torch {torch.__version__}, {date.today()}"
    sentences = [re.sub(r"(?<!\w)-(?=\d)", "−", sentence) for sentence in sentences]  # minus signs, not hyphens
    record = {"settings": settings, "where": where, "measured": dict(measured), "sentences": sentences}
    with atomic.writing(options.out):
        drawn.savefig(options.out, dpi=100)
    drawn.clear()
    atomic.write(options.out.with_suffix(".json"), (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    print("\n".join([*sentences, str(options.out)]))
