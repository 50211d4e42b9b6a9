"""What a run's samples look like: a sheet of images, or points in the plane on the critic's contours."""

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import atomic, report
from ._optional import optional
from .data import Images, Toy

SIDE = 110  # points along the edge of the plane's contours: 12,100 scores take 20 ms


@dataclass(frozen=True)
class Sheet:
    """10 rows of 10 images."""

    scale: int
    """Screen pixels per pixel; the film has one."""
    count: int = report.ROWS**2

    def save(self, samples: torch.Tensor, critic: nn.Module, path: Path) -> None:
        """Writes samples [count, C, H, W] as PNG."""
        report.save_grid(samples, path, scale=self.scale)


class Plane:
    """Generated points and real ones, and where the critic sees real (high) and generated (low)."""

    scale = 1
    count = 1000

    def __init__(self, toy: Toy, device: torch.device):
        random = torch.Generator(device).manual_seed(0)
        self.real = toy.sample(self.count, random)
        low, high = self.real.amin(0).cpu(), self.real.amax(0).cpu()
        middle, reach = (low + high) / 2, 0.7 * (high - low).max()
        self.ranges = [torch.linspace(float(c - reach), float(c + reach), SIDE) for c in middle]

    @torch.no_grad()
    def save(self, samples: torch.Tensor, critic: nn.Module, path: Path) -> None:
        """Writes samples [count, 2] as PNG."""
        optional("matplotlib", "writing pictures").use("Agg")
        pyplot = optional("matplotlib.pyplot", "writing pictures")
        x, y = self.ranges
        points = torch.cartesian_prod(x, y).to(self.real.device)
        scores = critic(points).reshape(SIDE, SIDE).T.float().cpu()
        figure, axes = pyplot.subplots(figsize=(4.5, 4.5), dpi=100)
        axes.contourf(x, y, scores, levels=20, cmap="Greys_r", alpha=0.6)
        for kind, color in ((self.real, "C0"), (samples, "C1")):
            axes.plot(*kind.cpu().T, ".", color=color, markersize=2.5, alpha=0.6)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xticks=[], yticks=[])
        figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
        content = io.BytesIO()
        figure.savefig(content, format="png")
        pyplot.close(figure)
        atomic.write(path, content.getbuffer())


def picture_of(data: Images | Toy, device: torch.device | str) -> Sheet | Plane:
    """How samples like those of ``data`` are shown. device: that of the samples."""
    if isinstance(data, Toy):
        return Plane(data, torch.device(device))
    return Sheet(scale=report.SCALE if data.shape[-1] <= 32 else 1)
