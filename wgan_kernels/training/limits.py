"""What a configuration's values may be: each that may not is refused by its flag, before anything is written."""

import math
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from .config import Config

ALL_LABELS = tuple(range(10))
LABELLED = ("mnist", "fashion-mnist", "cifar10", "svhn")  # ten classes each
COUNTS = (
    "iterations", "batch_size", "generator_batch_size", "n_critic", "penalty_every", "latent", "side",
    "log_every", "sample_every", "eval_every", "checkpoint_every", "keep",
)  # fmt: skip
SEEDS = range(-(2**63), 2**63)  # a run adds its iterations, and PyTorch takes no more than 64 bits
FRACTIONS = ("ema_decay", "alpha", "beta1", "beta2")
# Flag → the other flag and the values of it with which it is read.
READ_WITH = {
    "clip": ("method", ("wgan",)),
    "clipped": ("method", ("wgan",)),
    "penalty_weight": ("method", ("wgan-gp",)),
    "penalty_every": ("method", ("wgan-gp",)),
    "alpha": ("optimizer", ("rmsprop",)),
    "beta1": ("optimizer", ("adam",)),
    "beta2": ("optimizer", ("adam",)),
    "side": ("dataset", ("celeba", "folder")),
}


def check_ranges(config: "Config") -> None:
    """Raises UsageError on the first value out of range, and on two that do not go together."""
    if not config.digits or not set(config.digits) <= set(ALL_LABELS):
        wrong = " ".join(str(digit) for digit in config.digits if digit not in ALL_LABELS) or "nothing"
        raise UsageError(f"--digits {wrong}: expected digits from 0 to 9, for example --digits 3 or --digits 3 4 6")
    for name in COUNTS:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: expected a whole number of at least 1")
    for name in ("lr", "clip"):
        if not 0 < getattr(config, name) < math.inf:
            raise UsageError(f"--{name} {getattr(config, name)}: expected a positive number")
    if not 0 <= config.penalty_weight < math.inf:
        raise UsageError(f"--penalty-weight {config.penalty_weight}: expected a number of at least 0")
    if not 0 <= config.lr_end <= 1:
        raise UsageError(f"--lr-end {config.lr_end}: expected a fraction in [0, 1]")
    for name in FRACTIONS:
        if not 0 <= getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected a number in [0, 1)")
    check_seed(config.seed)
    if not config.time_limit > 0:
        raise UsageError(f"--time-limit {config.time_limit}: expected a positive number of minutes")
    _check_together(config)


def check_read(config: "Config", start: "Config") -> None:
    """Raises UsageError on a flag that changes ``start``, with which a command line begins, and that nobody reads."""
    for name, (other, values) in READ_WITH.items():
        now, chosen = getattr(config, name), getattr(config, other)
        if now != getattr(start, name) and chosen not in values:
            raise UsageError(
                f"--{name.replace('_', '-')} {now}: means nothing with --{other} {chosen}, only with "
                f"{' or '.join(values)}; leave it out"
            )


def check_seed(seed: int) -> None:
    """Raises UsageError on a seed that PyTorch's random numbers do not take."""
    if seed not in SEEDS:
        raise UsageError(f"--seed {seed}: expected a whole number from {SEEDS.start} to {SEEDS.stop - 1}")


def _check_together(config: "Config") -> None:
    if config.digits != ALL_LABELS and config.dataset not in LABELLED:
        raise UsageError(f"--digits: {config.dataset} has no classes to choose from; leave --digits out")
    if config.method == "wgan-gp" and config.critic_batches == "in-turn":
        raise UsageError("--critic-batches in-turn: the penalty needs real and generated images together; use wgan")
    if config.critic_batches == "in-turn" and config.precision != "float32":
        raise UsageError(f"--precision {config.precision}: --critic-batches in-turn knows float32 alone")
