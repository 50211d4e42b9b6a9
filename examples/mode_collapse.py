"""Mode collapse: a GAN and WGAN-GP on 8 and 25 gaussians, the modes they cover over time, and a film of both.

    python examples/mode_collapse.py --out mode_collapse.png

    WGAN-GP    critic: mean f(fake) − mean f(real) + λ·penalty       generator: −mean f(fake)         n_critic 5
    GAN        discriminator: −log D(real) − log(1 − D(fake))        generator: −log D(fake)          n_critic 1, and 5

(Gulrajani et al. 2017; Goodfellow et al. 2014, section 3; seed S4.) All have the same networks, batches, learning rate
and number of generator updates; several seeds each. The film (GIF) is beside the figure. Needs the ``gallery`` extra.
"""

import io
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from experiment import CRITIC, EXACT, JS, MODEL, Options, discriminator_update, panels, save
from plane import relu_network, surface, values
from script import main, progress
from torch.nn.functional import logsigmoid

import wgan_kernels as wk
from wgan_kernels.training import atomic
from wgan_kernels.training._optional import optional
from wgan_kernels.training.data import Toy, load
from wgan_kernels.training.errors import UsageError
from wgan_kernels.training.metrics.modes import covered, good_per_mode, kl_to_uniform

TOYS = {"8-gaussians": 0.5, "25-gaussians": 1.0}  # with the share of --steps that each has
WGAN, GAN, GAN_5 = "WGAN-GP", "GAN", "GAN, n_critic 5"
METHODS = {WGAN: (CRITIC, 5, (0.5, 0.9)), GAN: (JS, 1, (0.5, 0.999)), GAN_5: ("C9", 5, (0.5, 0.999))}
"""Colour, updates of critic or discriminator for one of the generator, Adam's β."""
SHOWN = {"modes": "modes covered", "good": "share of good samples", "kl": "KL of the modes to even shares"}
LATENT = 2  # as published
JUDGED, DRAWN = 2500, 500  # generated samples
LOOKS = 40  # how often they are judged, and frames of the film
FRAME_MS, LAST_FRAME_MS = 150, 3000
FILM_LEVELS, FILM_DPI, COLOURS = 8, 80, 32  # of the film: 1.7 MB; with 16, 100 and 48 it had 4.4


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Mode collapse: a GAN and WGAN-GP on 8 and 25 gaussians, the modes they cover over time, and a film of both."""

    out: Path = Path("mode_collapse.png")
    """The figure to write (PNG); its film (GIF) and what was measured (JSON) go beside it. Such files are replaced."""
    steps: int = 2000
    """Generator updates on 25 gaussians; on 8 half as many."""
    batch_size: int = 128
    width: int = 64
    """Of the three hidden layers."""
    lr: float = 5e-3
    """Of all networks' Adam, at first; it falls to 0 along a line."""
    weight: float = 0.1
    """λ of the gradient penalty: the paper's for these distributions."""
    seed: int = 0
    """The first one; it is also that of the samples and the film that are shown."""
    seeds: int = 3
    """Runs of each method on each distribution."""
    full: bool = False
    """The published length and networks: 100,000 updates (8 gaussians: 50,000), 512 wide, batch 256, lr 1e-4; days."""

    def check(self) -> None:
        super().check()
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}: expected a whole number of at least 1")

    def resolved(self) -> "Config":
        """With what ``full`` means."""
        return replace(self, steps=100_000, width=512, batch_size=256, lr=1e-4) if self.full else self

    def updates(self, toy: str) -> int:
        return round(TOYS[toy] * self.steps)


class Game:
    """A generator and its critic or discriminator."""

    def __init__(self, method: str, toy: Toy, steps: int, seed: int, config: Config):
        self.toy, self.batch_size = toy, config.batch_size
        _, self.n_critic, betas = METHODS[method]
        torch.manual_seed(seed)
        self.random = torch.Generator().manual_seed(seed)
        hidden = [config.width] * 3
        self.generator, self.scorer = relu_network(LATENT, *hidden, 2), relu_network(2, *hidden, 1)
        networks = (self.generator, self.scorer)
        self.optimizers = [wk.optim.Adam(network.parameters(), lr=config.lr, betas=betas) for network in networks]
        self.schedules = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps) for optimizer in self.optimizers
        ]
        of_generator, of_scorer = self.optimizers
        if method == WGAN:  # not tuned: the same numbers every time
            self._learn_scores = wk.CriticStep(self.scorer, of_scorer, "gp", config.weight, tune=False)
            self._learn_samples = wk.GeneratorStep(self.generator, self.scorer, of_generator, tune=False)
        else:
            self._learn_scores = partial(discriminator_update, self.scorer, of_scorer)
            self._learn_samples = self._minus_log_d

    @torch.no_grad()
    def sample(self, latent: torch.Tensor) -> torch.Tensor:
        """[B, LATENT] → [B, 2]"""
        return self.generator(latent)

    def update(self) -> None:
        """n_critic updates of the critic or discriminator, one of the generator."""
        for _ in range(self.n_critic):
            self._learn_scores(self.toy.sample(self.batch_size, self.random), self.sample(self._latent()))
        self._learn_samples(self._latent())
        for schedule in self.schedules:
            schedule.step()

    def _minus_log_d(self, latent: torch.Tensor) -> None:
        loss = -logsigmoid(self.scorer(self.generator(latent))).mean()
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()

    def _latent(self) -> torch.Tensor:
        return torch.randn(self.batch_size, LATENT, generator=self.random)


def verdict(samples: torch.Tensor, toy: Toy) -> dict[str, float]:
    """Covered modes, the share of good samples, and how uneven the modes are (training/metrics/modes.py)."""
    good = good_per_mode(samples, toy.modes, toy.spread)
    return {
        "modes": covered(good, len(samples)),
        "good": good.sum().item() / len(samples),
        "kl": kl_to_uniform(good),
    }


@dataclass(frozen=True)
class Frame:
    update: int
    modes: int  # covered
    samples: torch.Tensor  # [DRAWN, 2], generated
    heights: torch.Tensor  # [SIDE, SIDE], of the critic or discriminator


def play(method: str, name: str, seed: int, config: Config, advance) -> tuple[list[dict], list[Frame]]:
    """Trains, and judges before it and LOOKS times on the way: (the verdicts, what is shown of the first seed)."""
    toy, steps = load(name), config.updates(name)
    game = Game(method, toy, steps, seed, config)
    latent = torch.randn(JUDGED, LATENT, generator=torch.Generator().manual_seed(config.seed))
    looks = {round(steps * look / LOOKS) for look in range(LOOKS + 1)}
    rows, frames = [], []
    for update in range(steps + 1):
        if update:
            game.update()
            advance(f"{name}, {method}, seed {seed}")
        if update in looks:
            samples = game.sample(latent)
            rows.append({"update": update, **verdict(samples, toy)})
            if seed == config.seed:
                frames.append(Frame(update, rows[-1]["modes"], samples[:DRAWN].clone(), values(game.scorer)))
    return rows, frames


def run(config: Config) -> dict:
    """Trains and draws; returns what was measured."""
    config = config.resolved()
    seeds = range(config.seed, config.seed + config.seeds)
    with progress(len(METHODS) * len(seeds) * sum(map(config.updates, TOYS))) as advance:
        found = {
            toy: {method: [play(method, toy, seed, config, advance) for seed in seeds] for method in METHODS}
            for toy in TOYS
        }
    rows = {toy: {method: [of[0] for of in runs] for method, runs in found[toy].items()} for toy in TOYS}
    frames = {toy: {method: runs[0][1] for method, runs in found[toy].items()} for toy in TOYS}
    measured = {
        "updates": {toy: _column(rows[toy][WGAN][0], "update") for toy in TOYS},
        "runs": {
            toy: {method: [{key: _column(of, key) for key in SHOWN} for of in runs] for method, runs in by.items()}
            for toy, by in rows.items()
        },
        "runs that end without a mode": {
            toy: {method: sum(of[-1]["modes"] < len(load(toy).modes) for of in runs) for method, runs in by.items()}
            for toy, by in rows.items()
        },
    }
    film(frames, config.out.with_suffix(".gif"))
    save(picture(measured, frames), config, measured, sentences(measured, config))
    return measured


def sentences(measured: dict, config: Config) -> list[str]:
    told = []
    for toy, by in measured["runs"].items():
        ends = []
        for method, runs in by.items():
            modes, good = ([of[key][-1] for of in runs] for key in ("modes", "good"))
            ends.append(f"{method} {', '.join(map(str, modes))} ({sum(good) / len(good):.0%} good samples)")
        told.append(
            f"{_words(toy)}, {config.updates(toy):,} generator updates: modes covered at the end by {config.seeds} "
            f"seeds: {'; '.join(ends)}."
        )
    missing = [
        f"{_words(toy)}: {', '.join(f'{method} {count}' for method, count in by.items())}"
        for toy, by in measured["runs that end without a mode"].items()
    ]
    return [*told, f"Runs of {config.seeds} that end without one mode or more: {'; '.join(missing)}."]


def picture(measured: dict, frames: dict[str, dict[str, list[Frame]]]):
    """The figure of twelve panels: for each distribution what was measured, and samples at the end."""
    drawn, axes = panels(4, 3)
    for over_time, scatters, toy in zip(axes[::2], axes[1::2], TOYS, strict=True):
        updates, count = measured["updates"][toy], len(load(toy).modes)
        for panel, (key, title) in zip(over_time, SHOWN.items(), strict=True):
            for method, (colour, *_) in METHODS.items():
                runs = torch.tensor([of[key] for of in measured["runs"][toy][method]], dtype=torch.float64)
                panel.plot(updates, runs.T, color=colour, linewidth=0.6, alpha=0.5)
                panel.plot(updates, runs.mean(0), color=colour, linewidth=2, label=f"{method}, mean of {len(runs)}")
            panel.set(title=f"{_words(toy)}: {title}", xlabel="generator update")
            panel.grid(alpha=0.3)
        over_time[0].axhline(count, color=EXACT, linestyle="--", label="all")
        for panel, method in zip(scatters, METHODS, strict=True):
            last = frames[toy][method][-1]
            scene(panel, toy, last)
            panel.set_title(f"{method}, update {last.update}: {last.modes} of {count} modes")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), ncols=len(METHODS) + 1, loc="outside upper center")
    axes[1, 0].legend(loc="upper left", fontsize="small", markerscale=4)
    return drawn


def scene(axes, toy: str, frame: Frame, levels: int = 16) -> None:
    """Draws generated points and real ones on the contours of the critic or discriminator."""
    surface(axes, frame.heights, load(toy).sample(DRAWN, torch.Generator().manual_seed(0)), levels)
    axes.plot(*frame.samples.T, ".", color=MODEL, markersize=2.5, label="generated")


def film(frames: dict[str, dict[str, list[Frame]]], path: Path) -> None:
    """Writes a GIF of one panel for each distribution and method."""
    image = optional("PIL.Image", "writing the film")
    drawn, axes = panels(len(TOYS), len(METHODS))
    drawn.set_size_inches(6.6, 4.9)
    pictures = []
    for look in range(max(len(shown) for by in frames.values() for shown in by.values())):
        for row, (toy, by) in zip(axes, frames.items(), strict=True):
            for panel, (method, shown) in zip(row, by.items(), strict=True):
                frame = shown[min(look, len(shown) - 1)]
                panel.clear()
                scene(panel, toy, frame, FILM_LEVELS)
                panel.set_title(f"{method}, {frame.update}: {frame.modes}/{len(load(toy).modes)}", fontsize="small")
        content = io.BytesIO()
        drawn.savefig(content, format="png", dpi=FILM_DPI)
        pictures.append(image.open(content).convert("RGB"))
    palette = pictures[-1].quantize(COLOURS)  # one for all frames: nothing flickers
    first, *rest = [picture.quantize(palette=palette, dither=image.Dither.NONE) for picture in pictures]
    milliseconds = [FRAME_MS] * len(rest) + [LAST_FRAME_MS]
    content = io.BytesIO()
    first.save(content, "gif", save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=True)
    atomic.write(path, content.getbuffer())


def _column(rows: list[dict], name: str) -> list[float]:
    return [row[name] for row in rows]


def _words(toy: str) -> str:
    return toy.replace("-", " ")


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
