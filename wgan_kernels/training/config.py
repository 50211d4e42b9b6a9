"""Everything a run is decided by. The fields are the flags of the scripts and the lines of ``config.yaml``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from ._optional import optional
from .data import DATASETS
from .device import fastest_precision, resolve_device
from .errors import UsageError
from .limits import ALL_LABELS, check_ranges
from .models import CRITICS, GENERATORS

PATHS = ("out", "data")

# A resumed run may differ from the run it continues in these, and in nothing else.
FREE_ON_RESUME = frozenset(
    {"out", "data", "resume", "device", "iterations", "time_limit"}
    | {"log_every", "sample_every", "eval_every", "checkpoint_every", "keep"}
)


@dataclass(frozen=True)
class Config:
    """Train a Wasserstein GAN. The defaults shown are those of the --preset and the --method that are asked for."""

    method: Literal["wgan", "wgan-gp"] = "wgan-gp"
    """wgan: clipped weights (Arjovsky et al. 2017). wgan-gp: the gradient penalty (Gulrajani et al. 2017)."""
    preset: Literal[
        "compact",
        "s0",
        "s1-dcgan",
        "s1-dcgan-plain",
        "s1-mlp",
        "s3-wgan",
        "s3-wgan-gp",
        "wgan-gp-mnist",
        "wgan-gp-cifar10",
        "toy",
    ] = "compact"
    """The settings of a document or a paper, to be changed by the flags beside it; docs/presets.md tells them.
    compact: ours, for digits in minutes on a CPU."""
    out: Path | None = None
    """Folder for everything the run writes: a new or an empty one.
    Left out: the first free one of runs/DATASET-METHOD, runs/DATASET-METHOD-2, …, or with the preset's name."""
    resume: bool = False
    """Go on with the run in --out from its checkpoint, with its settings.
    Only --iterations, --time-limit, --device, --data, --keep,
    --log-every, --sample-every, --eval-every and --checkpoint-every may change."""

    dataset: Literal[DATASETS] = "mnist"
    """What is to be learned: images, or a distribution in the plane."""
    data: Path | None = None
    """Folder with the data set's files; downloaded into it if it holds none and torchvision can.
    Left out: 10,000 MNIST digits embedded in the package; of the plane's distributions there are no files."""
    side: int = 64
    """celeba, folder: images are cropped to squares of so many pixels."""
    digits: tuple[int, ...] = ALL_LABELS
    """Train on these digits only: --digits 3 or --digits 3 4 6. Of fashion-mnist, cifar10 and svhn: these classes."""

    generator: Literal[GENERATORS] = "compact"
    """The generating network."""
    critic: Literal[CRITICS] = "compact"
    """The scoring network. For wgan-gp one without BatchNorm: the penalty is about each image's own gradient."""

    iterations: int = 2400
    """Generator updates in all."""
    time_limit: float = math.inf
    """Stop after so many minutes of training, as if --iterations had been reached."""
    batch_size: int = 64
    """Real images, and generated ones, in each critic update; of each process, where torchrun starts several."""
    generator_batch_size: int | None = None
    """Generated images in each generator update. Left out: as many as --batch-size."""
    critic_batches: Literal["joint", "in-turn"] = "joint"
    """in-turn: a critic update is two, first on the real images, then on generated ones. wgan only."""
    n_critic: int = 5
    """Critic updates before each generator update."""
    n_critic_schedule: Literal["constant", "original"] = "constant"
    """original: 100 critic updates instead before each of the first 25 generator updates and every 500th,
    as in Arjovsky et al.'s own code."""
    optimizer: Literal["rmsprop", "adam"] = "adam"
    """Of both networks."""
    lr: float = 3e-3
    """Learning rate of both networks at the start."""
    lr_end: float = 0.0
    """What is left of it at --iterations, as a fraction: it falls along a line, 1 keeps it as it is."""
    alpha: float = 0.99
    """rmsprop: decay of the mean square per update. PyTorch's is 0.99, that of Keras 0.9."""
    beta1: float = 0.5
    """adam: decay of the mean gradient per update."""
    beta2: float = 0.9
    """adam: decay of the mean square per update."""
    clip: float = 0.01
    """wgan: every critic parameter is clamped into [-clip, clip] after each update."""
    clipped: Literal["all", "convolutions"] = "all"
    """wgan: convolutions: clamp the kernels of the critic's convolutions, and nothing else."""
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
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """bfloat16: run the networks under autocast; tf32: round their products on a GPU; all else stays float32.
    auto: bfloat16 on CPUs that have its instructions, float32 elsewhere."""

    log_every: int = 10
    """Iterations between two rows of metrics.jsonl."""
    sample_every: int = 50
    """Iterations between two 10×10 grids of samples, the frames of progress.gif."""
    eval_every: int = 200
    """Iterations between two evaluations of 5,000 samples."""
    checkpoint_every: int = 200
    """Iterations between two checkpoints."""
    keep: int = 3
    """Checkpoints kept, the newest: should one be damaged, a resumed run goes on from the one before."""

    def resolved(self) -> "Config":
        """The same with every open choice made: out, device, precision. Raises UsageError on a value out of range."""
        name = self.method if self.preset == "compact" else self.preset
        chosen = replace(
            self,
            out=self.out or first_free(Path("runs") / f"{self.dataset}-{name}"),
            digits=tuple(sorted(set(self.digits))),
            device=resolve_device(self.device),
        )
        if self.precision == "auto":
            chosen = replace(chosen, precision=fastest_precision(chosen.device, chosen.critic_batches))
        check_ranges(chosen)
        return chosen

    def to_yaml(self) -> str:
        return optional("yaml", "config.yaml").safe_dump(self.to_plain(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> "Config":
        return cls.from_plain(optional("yaml", "config.yaml").safe_load(text))

    def to_plain(self) -> dict[str, object]:
        """Field values as str, int, float, bool, list and None, for YAML and for a checkpoint."""
        values = asdict(self)
        for name in PATHS:
            values[name] = None if values[name] is None else str(values[name])
        return {**values, "digits": list(self.digits)}

    @classmethod
    def from_plain(cls, values: Mapping[str, object]) -> "Config":
        """The inverse of ``to_plain``. Raises UsageError on an unknown field."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"config: unknown field {', '.join(unknown)}; it was written by another version")
        values = dict(values)
        for name in PATHS:
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
