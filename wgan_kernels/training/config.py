"""Everything a run is decided by. The fields are the flags of the script and the lines of ``config.yaml``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch

from . import distributed
from ._optional import optional
from .errors import UsageError

ALL_DIGITS = tuple(range(10))

# A resumed run may differ from the run it continues in these, and in nothing else.
FREE_ON_RESUME = frozenset(
    {"out", "data", "resume", "device", "iterations", "time_limit"}
    | {"log_every", "sample_every", "eval_every", "checkpoint_every", "keep"}
)


@dataclass(frozen=True)
class Config:
    """Train a Wasserstein GAN on MNIST digits. The defaults shown are those of the method on the command line."""

    method: Literal["wgan", "wgan-gp"] = "wgan-gp"
    """wgan: RMSprop and clipped weights (Arjovsky et al. 2017).
    wgan-gp: Adam and the gradient penalty (Gulrajani et al. 2017)."""
    out: Path | None = None
    """Folder for everything the run writes: a new or an empty one.
    Left out: the first free one of runs/mnist-METHOD, runs/mnist-METHOD-2, …"""
    resume: bool = False
    """Go on with the run in --out from its checkpoint, with its settings.
    Only --iterations, --time-limit, --device, --data and the --…-every may change."""
    data: Path | None = None
    """Folder with the 60,000 training digits as IDX files, gzipped or not; downloaded into it if it holds none.
    Left out: the 10,000 digits embedded in the package."""
    digits: tuple[int, ...] = ALL_DIGITS
    """Train on these digits only: --digits 3 or --digits 3 4 6."""

    iterations: int = 700
    """Generator updates in all."""
    time_limit: float = math.inf
    """Stop after so many minutes of training, as if --iterations had been reached."""
    batch_size: int = 64
    """Real images, and generated ones, in each update; of each process, where torchrun starts several."""
    n_critic: int = 5
    """Critic updates before each generator update."""
    n_critic_schedule: Literal["constant", "original"] = "constant"
    """original: 100 critic updates instead before each of the first 25 generator updates and every 500th,
    as in Arjovsky et al.'s own code."""
    lr: float = 3e-3
    """Learning rate of both networks at the start."""
    lr_end: float = 0.0
    """What is left of it at --iterations, as a fraction: it falls along a line, 1 keeps it as it is."""
    clip: float = 0.01
    """wgan: every critic parameter is clamped into [-clip, clip] after each update."""
    penalty_weight: float = 10.0
    """wgan-gp: weight of the gradient penalty in the critic's loss."""
    penalty_every: int = 1
    """wgan-gp: the penalty, times K, in every K-th critic update only: cheaper, and a departure from the paper
    (the lazy regularisation of StyleGAN2)."""
    latent: int = 32
    """Dimensions of the normal noise that the generator starts from."""
    ema_decay: float = 0.995
    """Pictures and figures come from a moving average of the generator's weights with this decay per iteration."""
    seed: int = 0
    """Seed of weights, batches, noise and interpolation points; each process draws its own of the last three."""

    device: str = "auto"
    """cpu, cuda, cuda:1, …; auto: cuda where there is one, else cpu. With torchrun, cuda is each process's own."""
    deterministic: bool = False
    """On a GPU: kernels that give the same bits each time, and no choice by speed. A CPU's always do."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """bfloat16: run the networks under autocast; tf32: round their products on a GPU; all else stays float32."""

    log_every: int = 10
    """Iterations between two rows of metrics.jsonl."""
    sample_every: int = 50
    """Iterations between two 10×10 grids of samples, the frames of progress.gif."""
    eval_every: int = 200
    """Iterations between two evaluations by the digit classifier."""
    checkpoint_every: int = 200
    """Iterations between two checkpoints."""
    keep: int = 3
    """Checkpoints kept, the newest: should one be damaged, a resumed run goes on from the one before."""

    @classmethod
    def of(cls, method: str) -> "Config":
        """The defaults of a method: docs/training.md says where they come from and how they were chosen."""
        wgan = cls(method="wgan", iterations=6000, lr=5e-5, lr_end=1.0, ema_decay=0.998)
        return {"wgan": wgan, "wgan-gp": cls()}[method]

    def resolved(self) -> "Config":
        """The same with every open choice made: out, device. Raises UsageError on a value out of range."""
        chosen = replace(
            self,
            out=self.out or first_free(Path("runs") / f"mnist-{self.method}"),
            digits=tuple(sorted(set(self.digits))),
            device=resolve_device(self.device),
        )
        _check_ranges(chosen)
        return chosen

    def to_yaml(self) -> str:
        return optional("yaml", "config.yaml").safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> "Config":
        return cls.from_plain(optional("yaml", "config.yaml").safe_load(text))

    def to_plain(self) -> dict[str, object]:
        """Field values as str, int, float, bool, list and None, for YAML and for a checkpoint."""
        values = asdict(self)
        for name in ("out", "data"):
            values[name] = None if values[name] is None else str(values[name])
        return {**values, "digits": list(self.digits)}

    @classmethod
    def from_plain(cls, values: Mapping[str, object]) -> "Config":
        """The inverse of ``to_plain``. Raises UsageError on an unknown field."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"config: unknown field {', '.join(unknown)}; it was written by another version")
        values = dict(values)
        for name in ("out", "data"):
            values[name] = None if values.get(name) is None else Path(values[name])
        if "digits" in values:
            values["digits"] = tuple(values["digits"])
        return cls(**values)


def first_free(folder: Path) -> Path:
    """``folder``, or the first of folder-2, folder-3, … that does not exist yet."""
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def resolve_device(name: str) -> str:
    """The device's name with "auto" decided. Raises UsageError where this machine has no such device."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise UsageError(f"--device {name}: cannot be used here ({reason}); use --device cpu or auto") from error
    return name


def take_own_gpu(device: str) -> None:
    """Of several processes, each makes the GPU of its own the one that "cuda" stands for. Raises UsageError."""
    kind, _, number = device.partition(":")
    if distributed.size() == 1 or kind == "cpu":
        return
    if number:
        raise UsageError(f"--device {device}: each process has a GPU of its own; leave the number out: --device {kind}")
    if distributed.local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"--nproc-per-node: this machine has {torch.cuda.device_count()} GPUs; start as many processes"
        )
    torch.cuda.set_device(distributed.local_rank())


def check_same_run(stored: Config, asked: Config) -> None:
    """Raises UsageError naming the first field in which a resumed run would differ from the run it continues."""
    for field in fields(Config):
        before, now = getattr(stored, field.name), getattr(asked, field.name)
        if field.name not in FREE_ON_RESUME and before != now:
            flag = "--" + field.name.replace("_", "-")
            raise UsageError(
                f"{flag} {_shown(now)}: the run in {asked.out} was started with {_shown(before)}; "
                f"leave {flag} out to continue it, or choose another --out"
            )


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_ranges(config: Config) -> None:
    if not config.digits or not set(config.digits) <= set(ALL_DIGITS):
        wrong = _shown(tuple(digit for digit in config.digits if digit not in ALL_DIGITS)) or "nothing"
        raise UsageError(f"--digits {wrong}: expected digits from 0 to 9, for example --digits 3 or --digits 3 4 6")
    counts = ("iterations", "batch_size", "n_critic", "penalty_every", "latent")
    for name in (*counts, "log_every", "sample_every", "eval_every", "checkpoint_every", "keep"):
        if getattr(config, name) < 1:
            raise UsageError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: expected a whole number of at least 1"
            )
    for name in ("lr", "clip"):
        if not 0 < getattr(config, name) < math.inf:
            raise UsageError(f"--{name} {getattr(config, name)}: expected a positive number")
    if not 0 <= config.penalty_weight < math.inf:
        raise UsageError(f"--penalty-weight {config.penalty_weight}: expected a number of at least 0")
    if not 0 <= config.lr_end <= 1:
        raise UsageError(f"--lr-end {config.lr_end}: expected a fraction in [0, 1]")
    if not 0 <= config.ema_decay < 1:
        raise UsageError(f"--ema-decay {config.ema_decay}: expected a number in [0, 1)")
    if not config.time_limit > 0:
        raise UsageError(f"--time-limit {config.time_limit}: expected a positive number of minutes")
