"""What a run leaves behind to look at: grids of samples, their film, the curves and the table of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ._optional import optional
from .metrics import Verdict

ROWS = 10
SCALE = 2  # screen pixels per pixel of a digit
FRAME_MS, LAST_FRAME_MS = 120, 3000
MAX_FRAMES = 60  # keeps progress.gif under 2.5 MB
SMOOTHING = 0.05  # of the curves: the fraction of a run that the running mean covers


def grid(images: torch.Tensor) -> torch.Tensor:
    """[100, 1, 28, 28] in [−1, 1] → uint8 [H, W]: ten rows of ten, one pixel apart, every pixel SCALE pixels wide."""
    pixels = ((images.squeeze(1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    tiles = nn.functional.pad(pixels, (0, 1, 0, 1), value=64).unflatten(0, (ROWS, -1))  # [10, 10, 29, 29]
    sheet = tiles.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)[:-1, :-1]
    return sheet.repeat_interleave(SCALE, 0).repeat_interleave(SCALE, 1)


def save_grid(images: torch.Tensor, path: Path) -> None:
    """Writes the 10×10 grid of 100 images as PNG."""
    image = optional("PIL.Image", "writing pictures")
    image.fromarray(grid(images.cpu()).numpy()).save(path, optimize=True)


def save_film(frames: Sequence[Path], path: Path) -> None:
    """The grids as an animation at one screen pixel per pixel; of more than MAX_FRAMES, an even choice."""
    image = optional("PIL.Image", "writing progress.gif")
    chosen = torch.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().long().tolist()
    pictures = []
    for index in chosen:
        with image.open(frames[index]) as picture:
            small = picture.resize((picture.width // SCALE, picture.height // SCALE), image.Resampling.NEAREST)
            pictures.append(small.quantize(16))  # 16 greys: a third of the size of 256
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


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
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def print_results(figures: Mapping[str, str], verdict: Verdict, pictures: Mapping[str, Path]) -> None:
    """The table at the end of a run: figures, the shares of the ten digits, where the pictures are."""
    table_type = optional("rich.table", "the table of results").Table
    console = optional("rich.console", "the table of results").Console()
    table = table_type(title="results", show_header=False)
    for name, value in figures.items():
        table.add_row(name, value)
    table.add_section()
    shares = "  ".join(f"{digit}: {share:.0%}" for digit, share in enumerate(verdict.histogram))
    table.add_row("digits generated", shares)
    console.print(table)
    for name, picture in pictures.items():
        print(f"{name}: {picture}")


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
