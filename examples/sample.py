"""Pictures from a trained generator: a grid, strips from one digit to another, a walk through the latent space.

    python examples/sample.py --run runs/mnist-wgan-gp
    python examples/sample.py --weights generator.safetensors --out pictures --seed 3
    python examples/sample.py --run runs/mnist-wgan-gp --grid 20 --strips 0 --walk 0

Needs ``pip install "wgan-kernels[train]"``; no GPU. The paths are in wgan_kernels/training/sampling.py.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from wgan_kernels.training import sampling, weights
from wgan_kernels.training._optional import MissingPackage, optional
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.limits import check_seed

# The largest grid is 33 million pixels, of digits; the longest of the largest walks holds 1.5 GB.
RANGES = {"grid": (0, 100), "strips": (0, 100), "steps": (2, 100), "walk": (0, 30), "frames": (2, 500)}


@dataclass(frozen=True)
class Options:
    """Pictures from a trained generator: grid.png, strips.png, walk.gif."""

    run: Path | None = None
    """Folder of a training run, its --out: the averaged generator of its newest checkpoint."""
    weights: Path | None = None
    """Instead of --run: a generator.safetensors, which a finished run leaves in its folder."""
    out: Path | None = None
    """Folder for the pictures. Left out: "pictures" in the run's folder, or beside the weights."""
    overwrite: bool = False
    """Replace pictures that are there; without, the script stops before it writes anything."""
    seed: int = 0
    """Seed of the noise: the same seed and weights, the same pictures."""

    grid: int = 10
    """Rows and columns of the grid; 0: no grid."""
    strips: int = 8
    """Rows of the strips, in each of which one digit becomes another; 0: no strips."""
    steps: int = 12
    """Pictures in a strip, both ends included."""
    walk: int = 6
    """Rows and columns of digits that walk; 0: no walk."""
    frames: int = 80
    """Frames of the walk, which then begins again without a jump."""

    def check(self) -> None:
        """Raises UsageError on a value out of range."""
        if (self.run is None) == (self.weights is None):
            raise UsageError("name either --run, the folder of a training run, or --weights, a generator.safetensors")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"--{name} {getattr(self, name)}: expected a whole number from {least} to {most}")
        if not (self.grid or self.strips or self.walk):
            raise UsageError("--grid 0 --strips 0 --walk 0: nothing is left to draw; leave one of them out")
        check_seed(self.seed)


def draw(options: Options) -> None:
    """Writes the pictures. Raises UsageError before it writes, or where a file cannot be written."""
    options.check()
    if options.run is not None:
        generator, iteration, damaged = sampling.generator_of_run(options.run)
        for sentence in damaged:
            print(f"warning: {sentence}; the checkpoint of iteration {iteration} is used", file=sys.stderr)
    else:
        generator = weights.load_generator(options.weights)
    out = options.out or (options.run or options.weights.parent) / "pictures"
    pictures = {}
    if options.grid:
        pictures[out / "grid.png"] = partial(sampling.save_grid, rows=options.grid)
    if options.strips:
        pictures[out / "strips.png"] = partial(sampling.save_strips, rows=options.strips, steps=options.steps)
    if options.walk:
        pictures[out / "walk.gif"] = partial(sampling.save_walk, rows=options.walk, frames=options.frames)
    existing = [str(path) for path in pictures if path.exists()]
    if existing and not options.overwrite:
        raise UsageError(f"{' and '.join(existing)}: there already; choose another --out, or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from error
    for path, save in pictures.items():
        save(generator, path, torch.Generator().manual_seed(options.seed))
        print(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 wrong arguments, or a file that cannot be read or written."""
    try:
        tyro = optional("tyro", "the command line")
        markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
        draw(tyro.cli(Options, args=arguments, config=markers))
    except (UsageError, MissingPackage) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
