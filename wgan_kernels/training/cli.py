"""The command line: Config's fields as flags, one line for every mistake, a word at every end."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from . import checkpoint, distributed
from ._optional import MissingPackage, check_installed, optional
from .config import Config
from .data import Images, Toy
from .device import take_own_gpu
from .errors import UsageError
from .folder import RunFolder
from .limits import LABELLED, check_read
from .presets import defaults
from .run import Diverged, Run, places

RANK = int(os.environ.get("RANK", 0))  # torchrun's, also when the ranks have parted


def parse(arguments: Sequence[str] | None = None, dataset: str | None = None) -> Config:
    """The resolved configuration of a command line: what it leaves out is the preset's, or the resumed run's own.

    Args:
        dataset: the only one of the script, instead of the preset's.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = _cli([argument for argument in arguments if argument not in ("-h", "--help")], Config())
    if asked.out is None and asked.resume:
        raise UsageError("--resume: add --out with the folder of the run to go on with")
    if asked.out is None and distributed.max_restarts() > 0:
        raise UsageError("torchrun --max-restarts: add --out, the folder that a restart goes on with")
    if not asked.resume and not _is_restart(asked):
        start = defaults(asked.method, asked.preset)
        start = replace(start, dataset=dataset or start.dataset)
        config = _cli(arguments, start)
        if dataset not in (None, config.dataset):
            raise UsageError(f"--dataset {config.dataset}: this script is for {dataset}; use examples/train.py")
        check_read(config, start)
        return config.resolved()
    state, _ = checkpoint.newest(RunFolder(asked.out).checkpoints)
    stored = Config.from_plain(state["config"])
    return replace(_cli(arguments, replace(stored, resume=False)), resume=True).resolved()


def _is_restart(asked: Config) -> bool:
    """Whether torchrun has started this again after a failure, and --out holds what the same torchrun began."""
    if distributed.restarts() == 0 or not checkpoint.saved(RunFolder(asked.out).checkpoints):
        return False
    state, _ = checkpoint.newest(RunFolder(asked.out).checkpoints)
    return state["job"] == distributed.job()


def _cli(arguments: Sequence[str], default: Config) -> Config:
    tyro = optional("tyro", "the command line")
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    return tyro.cli(Config, args=arguments, default=default, config=markers)


def main(arguments: Sequence[str] | None = None, dataset: str | None = None) -> int:
    """Trains as the arguments say, alone or as one of ``torchrun``'s processes.

    Args:
        dataset: the only one of the script; None: whichever the arguments name.

    Returns the exit status: 0 done, 1 diverged or without another process, 2 wrong arguments, 130 interrupted.
    """
    try:
        check_installed()
        with distributed.session():
            return _train(partial(parse, arguments, dataset))
    except (UsageError, MissingPackage) as error:
        _complain(str(error))
        return 2
    except Diverged as error:
        if RANK == 0:  # found on all at once
            _complain(f"the training diverged: {error}. The last good checkpoint is kept; try a smaller --lr")
        return 1
    except distributed.LostRank as error:
        _complain(f"{error}. The last checkpoint is kept; torchrun's report says which rank failed first")
        return 1
    except KeyboardInterrupt:
        if RANK == 0:
            print("stopped at once; what was saved before is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of a file or a process of our own it would be another error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        _complain("nobody reads the standard output any more; what was saved before is kept")
        return 2


def _train(parsed: Callable[[], Config]) -> int:
    config = distributed.from_rank_0(parsed)
    take_own_gpu(config.device)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS asks for
        torch.use_deterministic_algorithms(True)
    run = Run(config)
    _announce(run)
    if run.train():
        return 0
    print(f"saved at iteration {run.trainer.iteration}; go on with: {_command()} --out {config.out} --resume")
    return 130


def _complain(message: str) -> None:
    """One line on the standard error, which names the rank where it is not the first."""
    print(f"error: rank {RANK}: {message}" if RANK else f"error: {message}", file=sys.stderr)


def _command() -> str:
    """What started this process, as far as its own arguments."""
    size = distributed.size()
    return f"torchrun --nproc-per-node {size} {sys.argv[0]}" if size > 1 else f"python {sys.argv[0]}"


def _announce(run: Run) -> None:
    config = run.config
    begin = f"from iteration {run.trainer.iteration} " if config.resume else ""
    kind = "digits" if config.dataset == "mnist" else "classes"
    of = f" of the {kind} {' '.join(map(str, config.digits))}" if config.dataset in LABELLED else ""
    print(
        f"{config.method if config.preset == 'compact' else config.preset}: {config.iterations} iterations {begin}"
        f"on {places(config)}, {_what(run.data)}{of} → {config.out}",
        flush=True,
    )
    if not run.random_goes_on:
        print("another device or number of processes than before: the random numbers start anew", flush=True)


def _what(data: Images | Toy) -> str:
    return f"{len(data)} images" if isinstance(data, Images) else data.name
