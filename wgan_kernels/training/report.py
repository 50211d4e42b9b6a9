"""What a run leaves behind to look at: grids of samples, their film, the curves and the table of results."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from . import atomic
from ._optional import optional
from .metrics import correlation

ROWS = 10
SCALE = 2  # screen pixels per pixel of a digit
GREYS, COLOURS = 16, 64  # of a film: 16 greys take a third of the size of 256
SHARES = ("confidence", "good", "precision")  # a verdict's second curve is the first of these that it has
LABELS = {
    "fid": "classifier-FID",
    "confidence": "classifier's confidence",
    "good": "share of good samples",
    "precision": "precision",
    "sliced_w": "sliced Wasserstein distance",
}
FRAME_MS, LAST_FRAME_MS = 120, 3000
MAX_FRAMES = 60  # keeps progress.gif under 2.5 MB
SMOOTHING = 0.05  # of the curves: the fraction of a run that the running mean covers


def grid(images: torch.Tensor, columns: int = ROWS, scale: int = SCALE) -> torch.Tensor:
    """[N, C, H, W] in [−1, 1] → uint8 [H', W'], of colours [H', W', 3]: rows of ``columns`` images, one pixel apart,
    each pixel scale² wide. N is a multiple of ``columns``.
    """
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    tiles = nn.functional.pad(pixels, (0, 1, 0, 1), value=64).unflatten(0, (-1, columns))  # [rows, columns, C, h, w]
    sheet = tiles.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-1, :-1]
    return sheet.repeat_interleave(scale, 0).repeat_interleave(scale, 1).squeeze(2)


def save_grid(images: torch.Tensor, path: Path, columns: int = ROWS, scale: int = SCALE) -> None:
    """Writes the ``grid`` of the images as PNG."""
    image = optional("PIL.Image", "writing pictures")
    content = io.BytesIO()
    image.fromarray(grid(images.cpu(), columns, scale).numpy()).save(content, "png", optimize=True)
    atomic.write(path, content.getbuffer())


def save_film(frames: Sequence[Path], path: Path, scale: int = SCALE) -> None:
    """The frames as an animation, smaller by ``scale``; of more than MAX_FRAMES, an even choice."""
    image = optional("PIL.Image", "writing progress.gif")
    chosen = torch.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().long().tolist()
    pictures = []
    for index in chosen:
        with image.open(frames[index]) as picture:
            size = (picture.width // scale, picture.height // scale)
            pictures.append(picture.resize(size, image.Resampling.NEAREST))
    save_animation(pictures, [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS], path)


def save_animation(pictures: Sequence, milliseconds: int | Sequence[int], path: Path) -> None:
    """Writes PIL's ``pictures``, grey or in colours, as a GIF that runs for ever, each shown so long."""
    grey = pictures[0].mode == "L"
    first, *rest = [
        picture.quantize(GREYS) if grey else picture.convert("RGB").quantize(COLOURS) for picture in pictures
    ]
    content = io.BytesIO()
    first.save(content, "gif", save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=True)
    atomic.write(path, content.getbuffer())


def save_curves(rows: Sequence[Mapping[str, float]], path: Path, title: str, headline: str) -> None:
    """The losses, the Wasserstein estimate beside W₁ between samples, the critic's slope and the verdicts.

    Args:
        rows: of metrics.jsonl.
        headline: the name of the verdict's figure that is drawn.
    """
    optional("matplotlib", "writing curves.png").use("Agg")
    pyplot = optional("matplotlib.pyplot", "writing curves.png")
    figure, ((losses, estimate), (slope, quality)) = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for name, label in (
        ("critic_real", "critic on real: mean f(x)"),
        ("critic_fake", "critic on fake: mean f(G(z))"),
        ("generator", "generator: −mean f(G(z))"),
    ):
        _draw(losses, rows, name, label)
    _draw(estimate, rows, "wasserstein", "estimate: mean f(x) − mean f(G(z))")
    _draw(slope, rows, "gradient_norm", "mean ‖∇f‖ between real and fake")
    _draw(slope, rows, "penalty", "gradient penalty")
    judged = [row for row in rows if headline in row]
    second = [_beside(estimate, rows, judged), _judged(quality, judged, headline)]
    for axes in (losses, slope):
        axes.legend()
    for axes in (losses, estimate, slope, quality):
        axes.grid(alpha=0.3)
    for axes, right in zip((estimate, quality), second, strict=True):
        handles = [*axes.get_legend_handles_labels()[0], *(right.get_legend_handles_labels()[0] if right else [])]
        (right or axes).legend(handles=handles, loc="center right")  # above the lines of both
    for axes in (slope, quality):
        axes.set_xlabel("iteration")
    figure.suptitle(title)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    pyplot.close(figure)
    atomic.write(path, content.getbuffer())


def _beside(axes, rows: Sequence[Mapping[str, float]], judged: Sequence[Mapping[str, float]]):
    """W₁ between samples on an axis of its own, with its correlation with the running mean of the critic's estimate."""
    points = [(row["iteration"], row["w1"]) for row in judged if "w1" in row]
    if not points:
        return None
    mean = dict(zip(*_running_mean(rows, "wasserstein"), strict=True))
    known = [(mean[iteration], distance) for iteration, distance in points if iteration in mean]
    words = ""
    if len(known) > 2:
        pearson, spearman = correlation(*zip(*known, strict=True))
        words = f", r = {pearson:.2f} (of ranks {spearman:.2f})"
    right = axes.twinx()
    right.plot(*zip(*points, strict=True), "o-", color="C3", label=f"W₁ of samples, right{words}")
    right.margins(y=0.2)
    return right


def _judged(axes, judged: Sequence[Mapping[str, float]], headline: str):
    """The verdicts' headline on a logarithmic axis, a share on a second one."""
    iterations = [row["iteration"] for row in judged]
    axes.plot(iterations, [row[headline] for row in judged], "o-", color="C3", label=LABELS[headline])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    shares = [name for name in SHARES if judged and name in judged[0]]
    if not shares:
        return None
    right = axes.twinx()
    values = [row[shares[0]] for row in judged]
    right.plot(iterations, values, "s-", color="C2", label=f"{LABELS[shares[0]]} (right)")
    right.set_ylim(0, 1)
    return right


def print_results(figures: Mapping[str, str], verdict: Mapping[str, str], files: Mapping[str, Path]) -> None:
    """The table at the end of a run: figures, the verdict in words, where the files are."""
    table_type = optional("rich.table", "the table of results").Table
    console = optional("rich.console", "the table of results").Console()
    table = table_type(title="results", show_header=False)
    for section in (figures, verdict):
        for name, value in section.items():
            table.add_row(name, value)
        table.add_section()
    console.print(table)
    for name, path in files.items():
        print(f"{name}: {path}")


def _draw(axes, rows: Sequence[Mapping[str, float]], name: str, label: str) -> None:
    """One quantity: its values pale, their running mean strong."""
    iterations, mean = _running_mean(rows, name)
    if not iterations:
        return
    (line,) = axes.plot(iterations, mean, label=label)
    values = [row[name] for row in rows if name in row]
    axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.8)


def _running_mean(rows: Sequence[Mapping[str, float]], name: str) -> tuple[list[int], list[float]]:
    """(iterations, the mean over the SMOOTHING of the run before each)"""
    points = [(row["iteration"], row[name]) for row in rows if name in row]
    if not points:
        return [], []
    iterations, values = zip(*points, strict=True)
    width = max(1, round(len(values) * SMOOTHING))
    mean = torch.tensor(values, dtype=torch.float64).cumsum(0)
    mean[width:] = mean[width:] - mean[:-width]
    mean /= torch.arange(1, len(values) + 1).clamp(max=width)
    return list(iterations), mean.tolist()
