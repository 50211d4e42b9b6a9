"""What the documents' experiments on MNIST share: flags, training that is measured on its way, pictures of digits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from script import check_flags
from torch.optim.swa_utils import update_bn

from wgan_kernels.training import report
from wgan_kernels.training._optional import optional
from wgan_kernels.training.config import Config
from wgan_kernels.training.data import Images, load
from wgan_kernels.training.device import resolve_device
from wgan_kernels.training.trainer import Trainer

ALL = tuple(range(10))
COUNTED = 256  # images whose statistics are taken


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of every experiment on digits."""

    out: Path
    """The figure to write (PNG); what was measured goes beside it (JSON). Files of these names are replaced."""
    iterations: int
    """Generator updates, of each method."""
    full: bool = False
    """As many iterations as the document has, or the preset: hours on a CPU."""
    points: int
    """How often the samples are judged, in even steps; the last time at the end."""
    samples: int
    """Generated digits that are judged each time. Fewer look a little worse: the FID depends on their number."""
    seed: int = 0
    """Of weights, batches and noise."""
    threads: int = 2
    """Of PyTorch."""
    device: str = "auto"
    """cpu, cuda, …; auto: cuda where there is one, else cpu."""

    def check(self) -> None:
        """Raises UsageError on a value out of range."""
        check_flags(self, {"points": 1, "iterations": self.points, "samples": 100, "threads": 1})
        resolve_device(self.device)


class Model(Protocol):
    """What is trained here: a Trainer, or something like it."""

    iteration: int

    def iterate(self) -> dict[str, torch.Tensor]: ...

    def sample(self, latent: torch.Tensor) -> Iterable[torch.Tensor]: ...


def trainer(preset: Config, options: Options, data: Images, iterations: int, **changes) -> Trainer:
    """Of the preset, changed, in float32 unless another precision is among the changes; ``data`` are on the device."""
    asked = {"iterations": iterations, "seed": options.seed, "device": options.device, "precision": "float32"} | changes
    return Trainer(replace(preset, **asked).resolved(), data)


def all_digits(options: Options) -> Images:
    """The 10,000 that come with the package, on the device."""
    return load("mnist").to(resolve_device(options.device))


def noise(count: int, latent: int, options: Options) -> torch.Tensor:
    """[count, latent], the same at every point of a run: what changes in the samples is the generator's doing."""
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(options.seed + 1))


def sampled(trained: Trainer, latent: torch.Tensor) -> list[torch.Tensor]:
    """Batches of images from latent [N, L], of a generator that is judged as it is (``ema_decay`` 0).

    With the statistics that its BatchNorm has at its present weights. The running ones of a preset from Keras, momentum
    0.99, lag 50 iterations behind: after 100 of s3-wgan-gp the images were nearly black with them, classifier-FID 58,
    and 10.5 with those of the batch.
    """
    update_bn(latent[:COUNTED].split(64), trained.ema.module, trained.config.device)
    return list(trained.sample(latent))


def even_steps(iterations: int, count: int) -> list[int]:
    """``count`` iterations, the last of which is the end. iterations ≥ count."""
    return [round(iterations * step / count) for step in range(1, count + 1)]


def followed(model: Model, at: Sequence[int], measure: Callable[[], dict], after: Callable[[dict], None]) -> list[dict]:
    """Trains until the last iteration of ``at``, and measures after each of them.

    Args:
        model: at iteration 0.
        at: ascending.
        measure: → figures.
        after: called after every iteration, with what it returned.

    Returns:
        The figures, with "iteration" before them.
    """
    rows = []
    for iteration in at:
        while model.iteration < iteration:
            after(model.iterate())
        rows.append({"iteration": iteration, **measure()})
    return rows


def series(rows: Sequence[dict], name: str) -> list:
    return [row[name] for row in rows]


def sheet(axes, images: torch.Tensor, columns: int, title: str) -> None:
    """Draws images [N, 1, 28, 28]; N is a multiple of ``columns``."""
    axes.imshow(report.grid(images.cpu(), columns, 1), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(title=title, xticks=[], yticks=[])
    axes.set_frame_on(False)


def compare_fid(axes, rows: Mapping[str, Sequence[dict]], colours: Mapping[str, str], over: str) -> None:
    """Draws the classifier-FID of several ways of training.

    Args:
        rows: way → its figures at each point.
        colours: of each way.
        over: "iteration", or "seconds" of training.
    """
    for way, of in rows.items():
        axes.plot(series(of, over), series(of, "fid"), "o-", color=colours[way], label=way)
    logarithmic(axes)
    axes.set(title="classifier-FID", xlabel="seconds of training" if over == "seconds" else over)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def logarithmic(axes) -> None:
    """A logarithmic y axis, with plain numbers between the powers of ten where there are few of these."""
    ticker = optional("matplotlib.ticker", "the figure")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
    axes.tick_params(axis="y", which="minor", labelsize="x-small")
