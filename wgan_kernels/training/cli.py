"""The command line: Config's fields as flags, one line for every mistake, a word at every end."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from . import checkpoint
from ._optional import MissingPackage, check_installed, optional
from .config import Config
from .errors import UsageError
from .folder import RunFolder
from .run import Diverged, Run


def parse(arguments: Sequence[str] | None = None) -> Config:
    """The resolved configuration of a command line: what it leaves out is the method's, or the resumed run's own."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    asked = _cli([argument for argument in arguments if argument not in ("-h", "--help")], Config())
    if not asked.resume:
        return _cli(arguments, Config.of(asked.method)).resolved()
    if asked.out is None:
        raise UsageError("--resume: add --out with the folder of the run to go on with")
    stored = Config.from_plain(checkpoint.load(RunFolder(asked.out).checkpoint)["config"])
    return _cli(arguments, replace(stored, resume=False)).resolved()


def _cli(arguments: Sequence[str], default: Config) -> Config:
    tyro = optional("tyro", "the command line")
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
    return tyro.cli(Config, args=arguments, default=default, config=markers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains as the arguments say. Returns the exit status: 0 done, 1 diverged, 2 wrong arguments, 130 interrupted."""
    try:
        check_installed()
        config = parse(arguments)
        run = Run(config)
        _announce(run)
        finished = run.train()
    except (UsageError, MissingPackage) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(
            f"error: the training diverged: {error}. The last good checkpoint is kept; try a smaller --lr",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint is kept", file=sys.stderr)
        return 130
    if finished:
        return 0
    print(f"saved at iteration {run.trainer.iteration}; go on with: python {sys.argv[0]} --out {config.out} --resume")
    return 130


def _announce(run: Run) -> None:
    config = run.config
    begin = f"from iteration {run.trainer.iteration} " if config.resume else ""
    print(
        f"{config.method}: {config.iterations} iterations {begin}on {config.device}, "
        f"{len(run.digits)} images of {'the digits ' + ' '.join(map(str, config.digits))} → {config.out}",
        flush=True,
    )
