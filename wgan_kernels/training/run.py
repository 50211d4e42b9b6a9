"""A run: the loop over the trainer, and what is shown and written when."""

import math
import time
import zlib

import torch

from . import checkpoint, report
from .config import Config, check_same_run
from .data import Digits, load
from .errors import UsageError
from .folder import RunFolder
from .interruption import stop_on_signal
from .metrics import Judge, Verdict
from .progress import progress
from .trainer import Trainer

EVALUATED = 5000  # generated images per verdict; the FID depends on their number, so it is the same everywhere
PICTURED = report.ROWS**2


class Diverged(Exception):
    """A loss or a weight is no longer finite."""


class Run:
    """One training run in its folder. Everything that can be wrong with its arguments is found before it writes."""

    def __init__(self, config: Config):
        """config: resolved. Raises UsageError; writes nothing."""
        self.config, self.folder = config, RunFolder(config.out)
        state = self._stored_state() if config.resume else self.folder.check_new()
        digits = load(config.data).only(config.digits)
        self.digits = digits.to(config.device)
        self.fingerprint = _fingerprint(digits)
        self.judge = Judge(self.digits)
        self.trainer = Trainer(config, self.digits)
        self.before = 0.0  # seconds of training in earlier runs
        self.verdict: Verdict | None = None  # the latest
        if state:
            self._take_over(state)
        # Noise of its own: pictures and verdicts must not move the training's random numbers.
        noise = torch.Generator().manual_seed(config.seed + 1)
        self.pictured = torch.randn(PICTURED, config.latent, generator=noise)
        self.evaluated = torch.randn(EVALUATED, config.latent, generator=noise)

    def train(self) -> bool:
        """Trains to the end and reports; False if it was interrupted before. Raises Diverged."""
        config, trainer, folder = self.config, self.trainer, self.folder
        folder.open(config)
        folder.rewind(trainer.iteration)
        if not config.resume:
            self._picture()
        self.started = time.monotonic()
        over = False
        with stop_on_signal() as stop, progress(trainer.iteration, config.iterations) as display:
            while not (over or stop.asked):
                metrics = trainer.iterate()
                done = trainer.iteration
                over = done == config.iterations or self.seconds() > 60 * config.time_limit
                to_judge = over or done % config.eval_every == 0
                if to_judge or done % config.log_every == 0:
                    row = self._row(metrics)
                    if to_judge:
                        row |= self._judge()
                    folder.append(row)
                    display.update(done, row)
                if over or done % config.sample_every == 0:
                    self._picture()
                if done % config.checkpoint_every == 0:
                    self._save()
        self._save()
        if over:
            self._finish()
        return over

    def seconds(self) -> float:
        """Time in the loop, pictures and verdicts included, over all parts of a resumed run."""
        return self.before + time.monotonic() - self.started

    def _row(self, metrics: dict[str, torch.Tensor]) -> dict[str, object]:
        """One line of metrics.jsonl; the only place where the loop waits for the device."""
        metrics = metrics | {"gradient_norm": self.trainer.gradient_norm()}
        values = dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at iteration {self.trainer.iteration}")
        return {"iteration": self.trainer.iteration, "seconds": round(self.seconds(), 2), **values}

    def _judge(self) -> dict[str, object]:
        self.verdict = self.judge(self.trainer.sample(self.evaluated))
        return {"fid": self.verdict.fid, "confidence": self.verdict.confidence, "histogram": self.verdict.histogram}

    def _picture(self) -> None:
        (images,) = self.trainer.sample(self.pictured)
        report.save_grid(images, self.folder.frame(self.trainer.iteration))

    def _save(self) -> None:
        if not self.trainer.is_finite():
            raise Diverged(f"a weight is not finite at iteration {self.trainer.iteration}")
        checkpoint.save(
            self.folder.checkpoint,
            {
                "config": self.config.to_plain(),
                "data": self.fingerprint,
                "seconds": self.seconds(),
                "trainer": self.trainer.state_dict(),
            },
        )

    def _stored_state(self) -> dict:
        state = checkpoint.load(self.folder.checkpoint)
        check_same_run(Config.from_plain(state["config"]), self.config)
        done = state["trainer"]["iteration"]
        if done >= self.config.iterations:
            raise UsageError(
                f"--iterations {self.config.iterations}: the run in {self.config.out} has done {done} already; "
                "ask for more to go on"
            )
        return state

    def _take_over(self, state: dict) -> None:
        if state["data"] != self.fingerprint:
            raise UsageError(f"--data {self.config.data}: not the images that the run in {self.config.out} began with")
        self.trainer.load_state_dict(state["trainer"])
        self.before = state["seconds"]

    def _finish(self) -> None:
        """The film, the curves and the table."""
        config, folder, trainer = self.config, self.folder, self.trainer
        seconds, done = self.seconds(), trainer.iteration
        report.save_film(folder.frames(), folder.film)
        report.save_curves(folder.rows(), folder.curves, f"{config.method} on MNIST, {done} iterations")
        figures = {
            "method": config.method,
            "iterations": f"{done}, with {config.n_critic} critic updates each",
            "time": f"{seconds:.0f} s, {1e3 * seconds / done:.0f} ms per iteration on {config.device}",
            "classifier-FID": f"{self.verdict.fid:.2f}, {EVALUATED} images against {len(self.digits)}",
            "classifier's confidence": f"{self.verdict.confidence:.3f}",
            "smallest mode": f"{self.verdict.smallest_mode(config.digits):.1%}",
        }
        pictures = {"samples": folder.frame(done), "film": folder.film, "curves": folder.curves}
        report.print_results(figures, self.verdict, pictures)


def _fingerprint(digits: Digits) -> str:
    return f"{len(digits)} images, crc32 {zlib.crc32(digits.images.numpy()):08x}"
