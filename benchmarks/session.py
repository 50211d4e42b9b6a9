"""One run, from the first case to the record of it."""

import torch
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from . import machine, records, tables
from .harness import copy_bandwidth, product_rate, run_case
from .peers.process import Peers


def chosen(cases, settings):
    """The cases that these settings admit, and ``[{"case", "reason"}]`` for the others."""
    admitted, others = [], []
    for case in cases:
        if case.kind not in (None, settings.device.type):
            others.append({"case": case.name, "reason": f"for --device {case.kind}"})
        elif case.large and settings.quick:
            others.append({"case": case.name, "reason": "too large for --quick"})
        else:
            admitted.append(case)
    return admitted, others


def run(cases, settings, command, json=None, pythons=()):
    """The record of ``cases``, and the file that holds it at every moment: ``json``, named by device and date where "".

    ``pythons``: the interpreters of baselines in processes of their own, {name: path}.

    Ctrl-C ends the run early: the record says so in ``complete`` and holds every case that was done.
    """
    torch.set_num_threads(settings.threads)
    cases, not_run = chosen(cases, settings)
    record = {
        "schema": records.SCHEMA,
        "complete": False,
        "command": command,
        "rounds": settings.rounds,
        "machine": machine.describe(settings),
        "copy": {},
        "matmul": {},
        "peers": {},
        "results": [],
        "not_run": not_run,
    }
    path = records.default_path(record["machine"]) if json == "" else json
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    try:
        records.write(record, path)
        with (
            Peers(settings.threads, pythons) as peers,
            Progress(*columns, console=tables.console(stderr=True), transient=True) as progress,
        ):
            task = progress.add_task("copy bandwidth and matrix products")
            record["copy"], record["matmul"] = copy_bandwidth(settings), product_rate(settings)
            for index, case in enumerate(cases, 1):
                progress.update(task, description=f"{index}/{len(cases)} {case.name}")
                record["results"].append(run_case(case, settings, peers))
                record["peers"] = peers.versions()
                records.write(record, path)
        record["complete"] = True
    except KeyboardInterrupt:
        pass
    record["machine"] |= {
        "load_average_after": machine.load_average(),
        "clock_mhz_after": machine.clock_mhz(settings.device),
    }
    records.write(record, path)
    return record, path
