"""One run, from the first case to the record of it."""

import torch
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from . import machine, records, tables
from .harness import copy_bandwidth, run_case


def run(cases, settings, command, json=None):
    """The record of ``cases``, and the file that holds it at every moment: ``json``, named by device and date where "".

    Ctrl-C ends the run early: the record says so in ``complete`` and holds every case that was done.
    """
    torch.set_num_threads(settings.threads)
    record = {
        "schema": records.SCHEMA,
        "complete": False,
        "command": command,
        "rounds": settings.rounds,
        "machine": machine.describe(settings),
        "copy": {},
        "results": [],
    }
    path = records.default_path(record["machine"]) if json == "" else json
    columns = TextColumn("{task.description}"), TimeElapsedColumn()
    try:
        records.write(record, path)
        with Progress(*columns, console=tables.console(stderr=True), transient=True) as progress:
            task = progress.add_task("copy bandwidth")
            record["copy"] = copy_bandwidth(settings)
            for index, case in enumerate(cases, 1):
                progress.update(task, description=f"{index}/{len(cases)} {case.name}")
                record["results"].append(run_case(case, settings))
                records.write(record, path)
        record["complete"] = True
    except KeyboardInterrupt:
        pass
    record["machine"]["load_average_after"] = machine.load_average()
    records.write(record, path)
    return record, path
