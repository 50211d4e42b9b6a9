"""A run: the loop over the trainer, and what is shown and written when."""

import copy
import math
import sys
import time
from contextlib import nullcontext
from functools import partial

import torch

from . import checkpoint, distributed, pictures, report, weights
from .config import Config, check_same_run
from .data import Images, Toy, load
from .errors import UsageError
from .folder import RunFolder
from .interruption import Stop, Stopped, stop_on_signal
from .limits import LABELLED
from .metrics import Verdict, judge_of
from .progress import progress
from .schedules import critic_updates, critic_updates_before
from .trainer import Metrics, Trainer

EVALUATED = 5000  # generated samples per verdict; the FID depends on their number, so it is the same everywhere
PATIENCE = 0.4  # seconds: how long an iteration may keep a stop waiting, which is to have saved within one


class Diverged(Exception):
    """A loss or a weight is no longer finite."""


class Run:
    """One training run in its folder. Everything that can be wrong with its arguments is found before it writes.

    Of several ranks, all iterate and stop together; rank 0 alone reads and writes the folder, and evaluates.
    """

    def __init__(self, config: Config):
        """config: resolved. Raises UsageError; writes nothing."""
        self.config, self.folder = config, RunFolder(config.out)
        self.leads = distributed.rank() == 0
        self.found = checkpoint.saved(self.folder.checkpoints)
        state = distributed.from_rank_0(self._stored_state if config.resume else self.folder.check_new)
        data = distributed.once_per_machine_first(partial(chosen_data, config))
        self.fingerprint = data.fingerprint()
        self.data = data.to(config.device)
        self.trainer = Trainer(config, self.data)
        self.judge = judge_of(self.data, config.dataset, config.digits) if self.leads else None
        self.picture = pictures.picture_of(self.data, config.device)
        self.before = 0.0  # seconds of training in earlier runs
        self.row: dict[str, object] | None = None  # of the latest iteration, while it is not logged yet
        self.verdict: Verdict | None = None  # the latest
        self.report_owed = False  # the training is over, its report not written yet
        self.random_goes_on = True  # after a resume, the random numbers of the run that it continues
        self.begun: dict | None = None  # the state before a long iteration, while it is under way
        self.pace = math.inf  # seconds per update of the latest iteration
        if state:
            self._take_over(state)
        # Noise of its own: pictures and verdicts must not move the training's random numbers.
        noise = torch.Generator().manual_seed(config.seed + 1)
        self.pictured = torch.randn(self.picture.count, config.latent, generator=noise)
        self.evaluated = torch.randn(EVALUATED, config.latent, generator=noise)

    def train(self) -> bool:
        """Trains to the end and reports; False if it was interrupted before. Raises Diverged, and UsageError where a
        file cannot be written; the last checkpoint stays.
        """
        self.started = time.monotonic()
        with self.folder.alone() if self.leads else nullcontext(), stop_on_signal() as stop:
            self._open()
            self._loop(stop)
            self._save()
            if _asked(stop) or not self.report_owed:
                return False
            stop.at_once = True  # all is saved; a resumed run would write the report again
            if self.leads:
                self._finish()
            self.report_owed = False
            self._save()
        return True

    def _open(self) -> None:
        """A new folder has its first checkpoint before anything else that a resume needs.

        Raises UsageError where another run was in the folder since this one has looked into it, and is over: its
        checkpoints would be overwritten, or set aside for an older one.
        """
        if self.leads and checkpoint.saved(self.folder.checkpoints) != self.found:
            raise UsageError(
                f"--out {self.config.out}: another process has trained there meanwhile; choose another folder, or add "
                "--resume to go on from where it ended"
            )
        if not self.config.resume:
            self._save()
        if self.leads:
            self.folder.describe(self.config)
            self.folder.rewind(self.trainer.iteration)

    def _loop(self, stop: Stop) -> None:
        """Iterates until the end, from when on a report is owed, or until a stop."""
        config, trainer = self.config, self.trainer
        self.report_owed = self.report_owed and self._is_over()
        self._complete(stop)
        with progress(trainer.iteration, config.iterations) as display:
            while not (self.report_owed or _asked(stop)):
                try:
                    metrics = self._iterate(stop)
                except Stopped:
                    return
                done = trainer.iteration
                self.report_owed = self._is_over()
                if self._to_judge() or done % config.log_every == 0:
                    self.row = self._row(metrics)
                    display.update(done, self.row)
                self._complete(stop)
                if done % config.checkpoint_every == 0:
                    self._save()

    def _iterate(self, stop: Stop) -> Metrics:
        """One iteration. If it is going to be a long one, a stop breaks it off (Stopped): then the state before it is
        the one that is saved.
        """
        updates = critic_updates(self.config, self.trainer.iteration) + 1
        long = self.pace * updates > PATIENCE and distributed.size() == 1  # ranks have to make the same steps
        self.begun = copy.deepcopy(self.trainer.state_dict()) if long else None  # 7 MB: 3 ms
        started = time.monotonic()
        metrics = self.trainer.iterate(stop.check) if long else self.trainer.iterate()
        self.begun, self.pace = None, (time.monotonic() - started) / updates
        return metrics

    def _complete(self, stop: Stop) -> None:
        """What the iteration that is done still owes: its row and its picture. A stop may leave the row owed."""
        if not self.leads:
            return
        done = self.trainer.iteration
        if self.row is not None:
            if self._to_judge():
                try:
                    # In parts: 5,000 images take seconds.
                    self.verdict = self.judge(stop.unless_asked(self.trainer.sample(self.evaluated)))
                except Stopped:
                    return
                except ValueError as error:  # the judges refuse samples that are not finite
                    raise Diverged(f"{error} at iteration {done}") from error
                self.row |= self.verdict
            self.folder.append(self.row)
            self.row = None
        frame = self.folder.frame(done)
        if (self.report_owed or done % self.config.sample_every == 0) and not frame.exists():
            self.picture.save(torch.cat(list(self.trainer.sample(self.pictured))), self.trainer.critic, frame)

    def _to_judge(self) -> bool:
        return self.report_owed or self.trainer.iteration % self.config.eval_every == 0

    def _is_over(self) -> bool:
        (out_of_time,) = distributed.anyone(self.seconds() > 60 * self.config.time_limit)
        return out_of_time or self.trainer.iteration >= self.config.iterations

    def seconds(self) -> float:
        """Time in the loop, pictures and verdicts included, over all parts of a resumed run."""
        return self.before + time.monotonic() - self.started

    def _row(self, metrics: dict[str, torch.Tensor]) -> dict[str, object]:
        """One line of metrics.jsonl, the mean over the ranks; the only place where the loop waits for the device."""
        metrics = metrics | self.trainer.look()
        means = torch.stack(list(metrics.values()))
        distributed.average_([means])
        values = dict(zip(metrics, means.tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at iteration {self.trainer.iteration}")
        return {"iteration": self.trainer.iteration, "seconds": round(self.seconds(), 2), **values}

    def _save(self) -> None:
        if not self.trainer.is_finite():
            raise Diverged(f"a weight is not finite at iteration {self.trainer.iteration}")
        state = {
            "config": self.config.to_plain(),
            "data": self.fingerprint,
            "shape": list(self.data.shape),
            "seconds": self.seconds(),
            "trainer": self.begun or self.trainer.state_dict(),
            "row": self.row,
            "verdict": self.verdict,
            "report_owed": self.report_owed,
            "job": distributed.job(),
        }
        if not self.leads:
            return
        self.folder.flush()
        checkpoint.save(self.folder.checkpoints, self.trainer.iteration, state, self.config.keep)

    def _stored_state(self) -> dict:
        config = self.config
        state, damaged = checkpoint.newest(self.folder.checkpoints)
        check_same_run(Config.from_plain(state["config"]), config)
        done = state["trainer"]["iteration"]
        for sentence in damaged:
            print(f"warning: {sentence}; going on from iteration {done} instead", file=sys.stderr)
        if not state["report_owed"] and done >= config.iterations:
            raise UsageError(
                f"--iterations {config.iterations}: the run in {config.out} has done {done} already; "
                "ask for more to go on"
            )
        if not state["report_owed"] and state["seconds"] > 60 * config.time_limit:
            raise UsageError(
                f"--time-limit {config.time_limit}: the run in {config.out} has taken that long already; "
                "ask for more to go on"
            )
        return state

    def _take_over(self, state: dict) -> None:
        if state["data"] != self.fingerprint:
            raise UsageError(f"--data {self.config.data}: not the data that the run in {self.config.out} began with")
        self.random_goes_on = self.trainer.load_state_dict(state["trainer"])
        self.before = state["seconds"]
        self.row, self.report_owed = state["row"], state["report_owed"]
        self.verdict = state["verdict"]

    def _finish(self) -> None:
        """The film, the curves, the weights and the table."""
        config, folder, trainer = self.config, self.folder, self.trainer
        verdict, seconds, done = self.verdict, self.seconds(), trainer.iteration
        report.save_film(folder.frames(), folder.film, self.picture.scale)
        name = config.method if config.preset == "compact" else config.preset
        title = f"{name} on {config.dataset}, {done} iterations"
        report.save_curves(folder.rows(), folder.curves, title, self.judge.headline)
        words = {"method": config.method, "dataset": config.dataset, "digits": config.digits, "iterations": done}
        network = {"network": config.generator, "latent": config.latent, "shape": self.data.shape}
        weights.export(trainer.ema.module, folder.generator, words | network)
        weights.export(trainer.critic, folder.critic, words | {"network": config.critic, "shape": self.data.shape})
        figures = {
            "method": name,
            "iterations": f"{done}, with {critic_updates_before(config, done)} critic updates",
            "time": f"{seconds:.0f} s, {1e3 * seconds / done:.0f} ms per iteration on {places(config)}",
        }
        written = {"samples": folder.frame(done), "film": folder.film, "curves": folder.curves}
        report.print_results(figures, self.judge.words(verdict), written | {"weights": folder.generator})


def chosen_data(config: Config) -> Images | Toy:
    """What the run learns from, on the CPU. Raises UsageError where it is missing or damaged."""
    data = load(config.dataset, config.data, config.side)
    return data.only(config.digits) if config.dataset in LABELLED else data


def places(config: Config) -> str:
    """What trains: the device, and how often, if ``torchrun`` started several processes."""
    size = distributed.size()
    return config.device if size == 1 else f"{config.device} in {size} processes"


def _asked(stop: Stop) -> bool:
    """Whether a stop is asked of any rank: all of them stop after the same iteration."""
    (asked,) = distributed.anyone(stop.asked)
    return asked
