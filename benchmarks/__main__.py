"""``python -m benchmarks``: list, run, compare, report."""

import os
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

from . import records, tables

WRONG, USAGE, INTERRUPTED = 1, 2, 130
PICTURES = (".png", ".svg", ".pdf", ".jpg")
MAX_THREADS = 1024
QUICK_S = 1.0  # for the rounds of one case


@dataclass
class List:
    """The cases, and the baselines that --peers takes."""

    def __call__(self):
        from .cases import CASES
        from .peers import PEERS, PROCESSES

        width = max(len(case.name) for case in CASES)
        print("cases")
        for case in CASES:
            others = (name for name in PROCESSES if case.told)
            unless = " (not when quick)" if case.large else ""
            print(f"  {case.name:{width}}  {case.what}; {', '.join([*case.contenders, *others])}{unless}")
        print("baselines")
        for name, what in PEERS.items():
            print(f"  {name:{width}}  {what}")
        return 0


RUN = """Check every contender of each CASE against the reference, then time them in turns.

A case is named by its op (clip), in full (clip/1000x4) or by a glob ('interpolate/*/given').
Without any: every case, as with --quick. Ctrl-C keeps what was measured. Exit code 1: a contender was wrong.

examples:
  python -m benchmarks run
  python -m benchmarks run clip interpolate --json
  python -m benchmarks run '*' --threads 2 --json before.json --plot before.png
  python -m benchmarks run iteration --peers eager jax keras --python jax=jax-env/bin/python keras=keras-env/bin/python
  python -m benchmarks run 'scaling/batch/*' --peers eager --json
  python -m benchmarks run norm_penalty --backend cpp reference --peers eager"""


@dataclass
class Run:
    cases: Annotated[Positional[tuple[str, ...]], arg(metavar="[CASE ...]")] = ()
    """What to run."""
    json: Annotated[str | None, arg(metavar="[FILE]")] = None
    """Write the record; without FILE into benchmarks/results/, named by device and date."""
    plot: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """Draw the ratios."""
    peers: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None
    """Baselines to time; all of them by default."""
    backend: Annotated[tuple[str, ...] | None, arg(metavar="NAME ...")] = None
    """Backends of ours to time beside the default one."""
    python: Annotated[tuple[str, ...], arg(metavar="PEER=PATH ...")] = ()
    """Interpreters of jax and keras, where they are not installed here: --python jax=jax-env/bin/python."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    dtype: Literal["float64", "float32", "float16", "bfloat16"] = "float32"
    """Of every input."""
    graphs: bool = False
    """Replays of CUDA graphs instead of eager calls."""
    threads: int | None = None
    """CPU threads; PyTorch's choice by default."""
    repeat: int | None = None
    """Rounds, in each of which every contender takes one turn; 50 by default, 9 when quick."""
    quick: bool = False
    """Few rounds, no large cases; no compilation and no other framework unless --peers names it."""

    def settings(self):
        """
        Raises:
            ValueError: the flags ask for what is not here.
        """
        import torch

        import wgan_kernels as wk

        from .harness import MIN_ROUNDS, Settings
        from .peers import PEERS

        unknown = [peer for peer in self.peers or () if peer not in PEERS]
        if unknown:
            raise ValueError(f"unknown baseline {unknown[0]!r}; known: {', '.join(PEERS)}")
        for backend in self.backend or ():
            with wk.use_backend(backend):  # raises for a name that no backend has
                pass
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: PyTorch finds no GPU here")
        quick = self.quick or not self.cases
        rounds = (9 if quick else 50) if self.repeat is None else self.repeat
        if rounds < MIN_ROUNDS:
            raise ValueError(f"--repeat {rounds}: quartiles need at least {MIN_ROUNDS} rounds")
        if self.graphs and self.device != "cuda":
            raise ValueError("--graphs: CUDA graphs need --device cuda")
        threads = torch.get_num_threads() if self.threads is None else self.threads
        if not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"--threads {threads}: at least 1 and at most {MAX_THREADS}")
        return Settings(
            device=torch.device(self.device),
            dtype=getattr(torch, self.dtype),
            threads=threads,
            rounds=rounds,
            quick=quick,
            peers=self.peers,
            backends=self.backend,
            graphs=self.graphs,
            seconds=QUICK_S if quick else Settings.seconds,
        )

    def pythons(self):
        """{peer: interpreter}.

        Raises:
            ValueError: a flag is not of the form, or names what is no such peer.
        """
        from .peers import PROCESSES

        pairs = [pair.partition("=") for pair in self.python]
        for name, _, path in pairs:
            if name not in PROCESSES or not path:
                raise ValueError(f"--python {name}: expected PEER=PATH, PEER one of {', '.join(PROCESSES)}")
        return {name: path for name, _, path in pairs}

    def command(self):
        """What to type to measure this again."""
        words = ["python", "-m", "benchmarks", "run", *self.cases]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("cases", "json", "plot", "python") and value != field.default:
                values = value if isinstance(value, tuple) else () if value is True else (value,)
                words += [f"--{field.name}", *values]
        return shlex.join(map(str, words))

    def __call__(self):
        from . import session
        from .cases import find

        if self.json is not None:
            check_writable("--json", Path(self.json) if self.json else records.RESULTS / "record.json")
        if self.json and Path(self.json).suffix != ".json":
            raise ValueError(f"--json {self.json}: the name has to end in .json; a CASE goes before the flags")
        if self.plot is not None:
            if self.plot.suffix.lower() not in PICTURES:
                raise ValueError(f"--plot {self.plot}: the name has to end in one of {' '.join(PICTURES)}")
            check_writable("--plot", self.plot)
            from . import plots  # now, so that a missing matplotlib is no news after minutes of timing
        record, path = session.run(find(self.cases), self.settings(), self.command(), self.json, self.pythons())
        out = tables.console()
        out.print(tables.heading(record), highlight=False)
        out.print(tables.results(record))
        out.print(tables.footnotes(record), highlight=False, markup=False, soft_wrap=True)
        if path:
            print(f"record: {path}")
        if self.plot:
            print(f"plot: {self.plot}" if plots.draw(record, self.plot) else "plot: no baseline was timed")
        if not record["complete"]:
            print("interrupted: the record holds what was done", file=sys.stderr)
            return INTERRUPTED
        return WRONG if any(result["status"] == "red" for result in record["results"]) else 0


def check_writable(flag, path):
    """
    Raises:
        ValueError: no file can be written there. Found before anything is timed, so that no figure is lost.
    """
    if path.is_dir():
        raise ValueError(f"{flag} {path}: is a folder; name a file in it")
    place = path if path.exists() else next(folder for folder in path.absolute().parents if folder.exists())
    if place != path and not place.is_dir():
        raise ValueError(f"{flag} {path}: {place} is a file, not a folder; choose another place")
    if not os.access(place, os.W_OK):
        raise ValueError(f"{flag} {path}: {place} cannot be written; choose another place")


@dataclass
class Compare:
    """Say row by row whether B is faster, slower or the same as A, or whether the spreads leave it unclear.

    The two have to come from the same device, number of threads and precision.
    """

    a: Annotated[Positional[Path], arg(metavar="A.json")]
    """The record from before."""
    b: Annotated[Positional[Path], arg(metavar="B.json")]
    """The record from after."""

    def __call__(self):
        from . import compare

        a, b = records.read(self.a), records.read(self.b)
        compare.refuse_apples_and_pears(a, b)
        for warning in compare.warnings(a, b):
            print(f"note: {warning}", file=sys.stderr)
        tables.console().print(compare.table(a, b))
        return 0


@dataclass
class Report:
    """Write docs/benchmarks.md, its pictures and the README's summary from the records in benchmarks/results/."""

    results: Path | None = None
    """A folder of records in their place."""
    into: Path | None = None
    """The folder that has README.md and docs/; this repository by default."""

    def __call__(self):
        from . import report

        for path in report.write(self.results or records.RESULTS, self.into or report.ROOT):
            print(f"written: {path}")
        return 0


def main(argv):
    """Runs one command and returns its exit code."""
    argv = argv or ["--help"]
    # argparse knows no option whose value may be left out beside greedy positionals: a bare --json gets an empty one.
    words = [
        word if word != "--json" or (following and not following.startswith("-")) else "--json="
        for word, following in zip(argv, [*argv[1:], ""], strict=True)
    ]
    command = tyro.cli(
        Annotated[List, subcommand("list")]
        | Annotated[Run, subcommand("run", description=RUN)]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Report, subcommand("report")],
        prog="python -m benchmarks",
        description="Every kernel beside what people use instead, checked before it is timed.",
        config=(FlagCreatePairsOff,),
        args=words,
    )
    try:
        return command()
    except (LookupError, ValueError) as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return USAGE
    except OSError as error:  # no such file, no room, no permission
        print(f"error: {error}; what was written before is kept", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:  # before the first case, or after the last
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
