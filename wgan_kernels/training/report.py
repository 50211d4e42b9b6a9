"""What a run leaves behind to look at: grids of samples, their film, the curves and the table of results."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from . import atomic
from ._optional import optional
from .metrics import Verdict

ROWS = 10
SCALE = 2  # screen pixels per pixel of a digit
FRAME_MS, LAST_FRAME_MS = 120, 3000
MAX_FRAMES = 60  # keeps progress.gif under 2.5 MB
SMOOTHING = 0.05  # of the curves: the fraction of a run that the running mean covers


def grid(images: torch.Tensor, columns: int = ROWS, scale: int = SCALE) -> torch.Tensor:
    """[N, 1, H, W] in [−1, 1] → uint8 [H', W']: rows of ``columns`` images, one pixel apart, each pixel scale² wide.

    N is a multiple of ``columns``.
    """
    pixels = ((images.squeeze(1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    tiles = nn.functional.pad(pixels, (0, 1, 0, 1), value=64).unflatten(0, (-1, columns))  # [rows, columns, 29, 29]
    sheet = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)[:-1, :-1]
    return sheet.repeat_interleave(scale, 0).repeat_interleave(scale, 1)


def save_grid(images: torch.Tensor, path: Path, columns: int = ROWS, scale: int = SCALE) -> None:
    """Writes the ``grid`` of the images as PNG."""
    image = optional("PIL.Image", "writing pictures")
    content = io.BytesIO()
    image.fromarray(grid(images.cpu(), columns, scale).numpy()).save(content, "png", optimize=True)
    atomic.write(path, content.getbuffer())


def save_film(frames: Sequence[Path], path: Path) -> None:
    """The grids as an animation at one screen pixel per pixel; of more than MAX_FRAMES, an even choice."""
    image = optional("PIL.Image", "writing progress.gif")
    chosen = torch.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().long().tolist()
    pictures = []
    for index in chosen:
        with image.open(frames[index]) as picture:
            pictures.append(picture.resize((picture.width // SCALE, picture.height // SCALE), image.Resampling.NEAREST))
    save_animation(pictures, [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS], path)


def save_animation(pictures: Sequence, milliseconds: int | Sequence[int], path: Path) -> None:
    """Writes PIL's greyscale ``pictures`` as a GIF that runs for ever, each shown so long."""
    first, *rest = [picture.quantize(16) for picture in pictures]  # 16 greys: a third of the size of 256
    content = io.BytesIO()
    first.save(content, "gif", save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=True)
    atomic.write(path, content.getbuffer())


def save_curves(rows: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """The losses, the Wasserstein estimate, the critic's slope and the classifier's verdicts over the iterations."""
    optional("matplotlib", "writing curves.png").use("Agg")
    pyplot = optional("matplotlib.pyplot", "writing curves.png")
    figure, ((losses, estimate), (slope, quality)) = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for name, label in (
        ("critic_real", "critic on real: mean f(x)"),
        ("critic_fake", "critic on fake: mean f(G(z))"),
        ("generator", "generator: −mean f(G(z))"),
    ):
        _draw(losses, rows, name, label)
    _draw(estimate, rows, "wasserstein", "Wasserstein estimate: mean f(x) − mean f(G(z))")
    _draw(slope, rows, "gradient_norm", "mean ‖∇f‖ between real and fake")
    _draw(slope, rows, "penalty", "gradient penalty")
    judged = [row for row in rows if "fid" in row]
    iterations = [row["iteration"] for row in judged]
    (fid,) = quality.plot(iterations, [row["fid"] for row in judged], "o-", color="C3", label="classifier-FID")
    quality.set_yscale("log")
    quality.yaxis.set_major_formatter("{x:g}")
    quality.yaxis.set_minor_formatter("{x:g}")
    right = quality.twinx()
    (confidence,) = right.plot(
        iterations, [row["confidence"] for row in judged], "s-", color="C2", label="classifier's confidence (right)"
    )
    right.set_ylim(0, 1)
    quality.legend(handles=[fid, confidence], loc="lower left")
    for axes in (losses, estimate, slope):
        axes.legend()
    for axes in (losses, estimate, slope, quality):
        axes.grid(alpha=0.3)
    for axes in (slope, quality):
        axes.set_xlabel("iteration")
    figure.suptitle(title)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    pyplot.close(figure)
    atomic.write(path, content.getbuffer())


def print_results(figures: Mapping[str, str], verdict: Verdict, files: Mapping[str, Path]) -> None:
    """The table at the end of a run: figures, the shares of the ten digits, where the files are."""
    table_type = optional("rich.table", "the table of results").Table
    console = optional("rich.console", "the table of results").Console()
    table = table_type(title="results", show_header=False)
    for name, value in figures.items():
        table.add_row(name, value)
    table.add_section()
    shares = "  ".join(f"{digit}: {share:.0%}" for digit, share in enumerate(verdict.histogram))
    table.add_row("digits generated", shares)
    console.print(table)
    for name, path in files.items():
        print(f"{name}: {path}")


def _draw(axes, rows: Sequence[Mapping[str, float]], name: str, label: str) -> None:
    """One quantity: its values pale, their running mean strong."""
    points = [(row["iteration"], row[name]) for row in rows if name in row]
    if not points:
        return
    iterations, values = zip(*points, strict=True)
    width = max(1, round(len(values) * SMOOTHING))
    mean = torch.tensor(values, dtype=torch.float64).cumsum(0)
    mean[width:] = mean[width:] - mean[:-width]
    mean /= torch.arange(1, len(values) + 1).clamp(max=width)
    (line,) = axes.plot(iterations, mean, label=label)
    axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.8)
