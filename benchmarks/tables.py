"""What a run looks like in a terminal. Elsewhere the same table, plain."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .case import OURS
from .paper import ESTIMATE, FORMULA
from .records import packages_of_peers

DIM = dict.fromkeys(("floor", "unit", "estimate"), "dim")


def console(**options):
    """A console that is never too narrow for the table: a number that is cut off is a number hidden."""
    return Console(width=max(175, Console(**options).width), **options)


def time_of(row):
    seconds = row["seconds"]
    factor, unit = (1, "s") if seconds["median"] >= 1 else (1e3, "ms") if seconds["median"] >= 1e-3 else (1e6, "µs")
    return spread_of(seconds, factor, f" {unit}")


def spread_of(spread, factor=1, unit=""):
    values = (factor * spread[key] for key in ("median", "q1", "q3"))
    median, q1, q3 = (f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in values)
    return f"{median}{unit} [{q1} – {q3}]"


def ratio_text(row):
    """How many times as long as ours the row took: above 1 we win, below we lose."""
    return "1" if row["contender"] == OURS else spread_of(row["times_ours"])


def ratio_of(row):
    if row["contender"] == OURS:
        return Text(ratio_text(row))
    ratio = row["times_ours"]
    style = DIM.get(row["role"], "green" if ratio["median"] >= 1 else "red")
    return Text(ratio_text(row), style=style)


def contender_of(row):
    default = f" ({row['backend']})" if row["contender"] == OURS and row["backend"] else ""
    first_call = row["first_call_s"] or 0
    compiled = f" (first call {first_call:.1f} s)" if first_call > 0.5 else ""
    style = {"ours": "bold", **DIM}.get(row["role"], "")
    return Text(row["contender"] + default + compiled, style=style)


def rate_of(result, row):
    """Speed, and the share of the floor that it reaches; bytes or operations, whichever are the limit."""
    share = row["share_of_floor"]
    if not share:
        return "", "", memory_of(row)
    key, unit = ("gflop_per_s", "GFLOP/s") if result["floor"] == "matmul" else ("gb_per_s", "GB/s")
    return f"{row[key]:.3g} {unit}", f"{share['median']:.1%}", memory_of(row)


def memory_of(row):
    return f"{row['peak_bytes'] / 2**20:.3g} MiB" if row["peak_bytes"] else ""


def overhead_of(row):
    """How many times a step without a penalty."""
    ratio = row["times_without"]
    return f"{ratio['median']:.2f}" if ratio and row["role"] in ("ours", "baseline") else ""


def add_case(table, result):
    names = iter([result["case"]])
    for fault in result["faults"]:
        table.add_row(next(names, ""), Text(fault["contender"]), Text(f"WRONG: {fault['fault']}", style="bold red"))
    for row in result["rows"]:
        table.add_row(
            next(names, ""), contender_of(row), time_of(row), *rate_of(result, row), overhead_of(row), ratio_of(row)
        )
    table.add_section()


def results(record):
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("case", no_wrap=True, style="bold")
    table.add_column("contender", no_wrap=True)
    table.add_column("median and quartiles", no_wrap=True)
    for heading in ("speed", "of floor", "peak memory", "÷ no penalty", "time ÷ ours"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in record["results"]:
        add_case(table, result)
    return table


def footnotes(record):
    """What the table leaves out: who was not timed and why, and how disturbed the timing was."""
    left_out = {}
    for result in record["results"]:
        for skip in result["skipped"]:
            left_out.setdefault((skip["contender"], skip["reason"]), []).append(result["case"])
    lines = [f"not timed: {name} in {', '.join(cases)}: {reason}" for (name, reason), cases in left_out.items()]
    for result in record["results"]:
        for skip in result.get("left_out", ()):
            lines.append(f"not timed: {skip['contender']} in {result['case']}: {skip['reason']}")
    floors = {f"{least:.2f}" for result in record["results"] if (least := result.get("least_times_without"))}
    if floors:
        lines.append(
            f"÷ no penalty: the same update without one, by the plain loop; floor {' or '.join(sorted(floors))}"
        )
    if any(row["role"] == "estimate" for result in record["results"] for row in result["rows"]):
        lines.append(f"{ESTIMATE}: {FORMULA}, of the parts above it; time ÷ ours: estimate ÷ measured")
    lines += [f"not run: {case['case']}: {case['reason']}" for case in record["not_run"]]
    disturbed = [result["preempted_per_s"] for result in record["results"] if result["rows"]]
    if disturbed:
        lines.append(f"preempted while timing: {min(disturbed):.0f} to {max(disturbed):.0f} times a second")
    return "\n".join(lines)


def heading(record):
    machine = record["machine"]
    software = (f"{name} {machine[name]}" for name in ("torch", "triton", "python", "cuda") if machine[name])
    speeds = (f"{where.replace('_', ' ')} {copy['gb_per_s']['median']:.3g}" for where, copy in record["copy"].items())
    rates = (
        f"{where.replace('_', ' ')} {rate['gflop_per_s']['median']:.3g}" for where, rate in record["matmul"].items()
    )
    peers = packages_of_peers(record)
    clock = f" at {machine['clock_mhz']:.0f} MHz" if machine.get("clock_mhz") else ""
    lines = [
        f"{machine['device']}{clock} · {machine['cores']} cores, {machine['threads']} threads · {machine['dtype']}",
        f"{', '.join(software)} · {machine['compiler'] or 'no C++ compiler'}",
        *([f"peers: {', '.join(peers)}"] if peers else []),
        f"commit {machine['commit'] or 'unknown'} · {machine['date']} · {record['rounds']} rounds",
        f"copy in GB/s: {', '.join(speeds) or 'not measured'}",
        f"matrix product in GFLOP/s: {', '.join(rates) or 'not measured'}",
    ]
    load = machine["load_average"] and machine["load_average"][0]
    if load:
        busy = ": too busy to time several threads" if load > machine["cores"] / 2 else ""
        lines.append(f"load average {load:.2f}{busy}")
    return "\n".join(lines)
