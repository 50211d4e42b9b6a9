"""The tables and sentences of the report."""

from .case import OURS
from .paper import ALONE, ASSUMED_LINKS, ASSUMED_STEPS, ESTIMATE, FORMULA, LARGE, SMALL, TOGETHER, all_reduce, bandwidth
from .peers import PEERS
from .records import packages_of_peers
from .tables import ratio_text, spread_of, time_of


def table(headings, rows):
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row_of(result, contender):
    return next((row for row in result["rows"] if row["contender"] == contender), None)


def baselines_of(result):
    return [row for row in result["rows"] if row["role"] == "baseline"]


def share_of(result, row):
    share = row["share_of_floor"]
    if not share:
        return ""
    percent = 100 * share["median"]
    return f"{percent:.{0 if percent >= 10 else 1}f}% of {result['floor']}"


def median_of(row):
    return f"{row['times_ours']['median']:.3g}"


def results_table(results, compact=False):
    """A line for each case: ours, its share of the floor, and how many times as long each baseline took; losses bold.

    ``compact``: medians alone, and no words on what a case is.
    """
    ratio = median_of if compact else ratio_text
    baselines = sorted({row["contender"] for result in results for row in baselines_of(result)}, key=list(PEERS).index)
    rows = []
    for result in results:
        case, ours = f"`{result['case']}`", row_of(result, OURS)
        if not compact:
            case += f"<br>{result['what']}"
        if ours is None:
            faults = "; ".join(f"{fault['contender']} {fault['fault']}" for fault in result["faults"])
            rows.append([case, f"**{result['status']}**: {faults}", "", *[""] * len(baselines)])
            continue
        found = {row["contender"]: row for row in baselines_of(result)}
        cells = (ratio(found[name]) if name in found else "" for name in baselines)
        lost = (name in found and found[name]["times_ours"]["median"] < 1 for name in baselines)
        cells = [f"**{cell}**" if less else cell for cell, less in zip(cells, lost, strict=True)]
        own = time_of(ours).partition(" [")[0] if compact else time_of(ours)
        rows.append([case, own, share_of(result, ours), *cells])
    return table(["case", "ours", "of the floor", *(f"{name} ÷ ours" for name in baselines)], rows)


def losses_text(results):
    """Where a baseline was faster: all quartiles of its ratio below 1, or only the median."""
    pairs = [(result["case"], row) for result in results for row in baselines_of(result)]
    if not pairs:
        return "No baseline was timed."
    lost = [(f"`{case}` {row['contender']} {median_of(row)}", row["times_ours"]) for case, row in pairs]
    clearly = [text for text, ratio in lost if ratio["q3"] < 1]
    barely = [text for text, ratio in lost if ratio["median"] < 1 <= ratio["q3"]]
    if not clearly + barely:
        return f"No baseline was faster in any of {len(pairs)} comparisons."
    said = f"A baseline was faster in {len(clearly)} of {len(pairs)} comparisons"
    said += f": {', '.join(clearly)}." if clearly else "."
    return f"{said} By the median alone, with quartiles on both sides of 1: {', '.join(barely)}." if barely else said


def overhead_table(results):
    rows = []
    for result in results:
        found = [row for row in result["rows"] if row["role"] in ("ours", "baseline") and row["times_without"]]
        if result.get("least_times_without") and found:
            ratios = "; ".join(f"{row['contender']} {spread_of(row['times_without'])}" for row in found)
            rows.append([f"`{result['case']}`", f"{result['least_times_without']:.2f}", ratios])
    return rows and table(["case", "floor", "with the penalty ÷ without"], rows)


def memory_table(results):
    rows = []
    for result in results:
        peaks = [(row["contender"], row["peak_bytes"]) for row in result["rows"] if row.get("peak_bytes")]
        if peaks and not result["axis"]:
            rows.append([f"`{result['case']}`", "; ".join(f"{name} {peak / 2**20:.3g} MiB" for name, peak in peaks)])
    return rows and table(["case", "peak of what a call allocates"], rows)


def processes_text(results):
    """The steps that were estimated, beside the estimate; then the same formula where nothing was measured."""
    estimated = [result for result in results if result["rows"] and row_of(result, ESTIMATE)]
    if not estimated:
        return None
    rows = []
    for result in estimated:
        parts = {row["contender"]: row for row in result["rows"]}
        count, size = result["paper"]["processes"], result["paper"]["bytes"]
        small, large = (parts[name]["seconds"]["median"] for name in (SMALL, LARGE))
        speed = bandwidth(count, result["paper"]["large_bytes"], large - small)
        rows.append(
            [
                f"{count}",
                *(time_of(parts[name]) for name in (ALONE, TOGETHER)),
                f"{1e6 * small:.0f} µs and {speed / 1e9:.3g} GB/s",
                f"{1e3 * all_reduce(count, size, speed, small):.3g} ms",
                *(time_of(parts[name]) for name in (ESTIMATE, OURS)),
                spread_of(parts[ESTIMATE]["times_ours"]),
                spread_of(parts[ALONE]["times_ours"]),
            ]
        )
    size, large = (estimated[-1]["paper"][key] for key in ("bytes", "large_bytes"))
    headings = ["N", "step alone", "all N, no exchange", "latency and bandwidth", "all-reduce, on paper"]
    headings += ["step, on paper", "step, measured", "paper ÷ measured", "alone ÷ measured"]
    measured = (
        "A critic's step with its gradients averaged over N Gloo processes, each with one thread and a batch of its "
        f"own. On paper {FORMULA}: t(1) is the step of one process while "
        f"the others wait, bytes are {size / 1e6:.3g} MB, latency and bandwidth come from all-reduces of one number "
        f"and of {large / 2**20:.0f} MiB, all in the same rounds."
    )
    assumed = (
        f"The same formula for GPUs, **where nothing was measured**: {size / 1e6:.3g} MB, with assumed links and an "
        "assumed step of one GPU alone. A cell: the step of N GPUs, and its share of N times the speed of one."
    )
    return "\n\n".join([measured, table(headings, rows), assumed, assumed_table(size)])


def assumed_table(size):
    """Paper alone: nominal bandwidth of one direction, assumed latency, assumed time of a step alone."""
    counts = (2, 8)
    headings = ["assumed link", "assumed step alone", *(f"{count} GPUs" for count in counts)]
    rows = []
    for link in ASSUMED_LINKS:
        for alone in ASSUMED_STEPS:
            steps = (alone + all_reduce(count, size, link.bytes_per_s, link.latency_s) for count in counts)
            what = f"{link.name}: {link.bytes_per_s / 1e9:g} GB/s, {1e6 * link.latency_s:.0f} µs"
            rows.append([what, f"{1e3 * alone:g} ms", *(f"{1e3 * t:.3g} ms, {alone / t:.0%}" for t in steps)])
    return table(headings, rows)


def first_calls_text(results):
    """What is left out of the times: compilation, tracing, tuning."""
    found = [
        f"`{result['case']}` {row['contender']} {row['first_call_s']:.1f} s"
        for result in results
        for row in result["rows"]
        if (row["first_call_s"] or 0) > 1
    ]
    return found and f"First calls of more than a second, which are not in these times: {', '.join(found)}."


def missing_text(results):
    reasons = {}
    for result in results:
        for skip in result["skipped"]:
            reasons.setdefault((skip["contender"], skip["reason"]), []).append(f"`{result['case']}`")
    return "\n".join(f"- {name}, in {', '.join(cases)}: {reason}" for (name, reason), cases in reasons.items())


def sources_table(sources):
    rows = []
    for name, record in sources:
        machine = record["machine"]
        software = ", ".join(f"{key} {machine[key]}" for key in ("torch", "triton", "python", "cuda") if machine[key])
        peers = ", ".join(packages_of_peers(record))
        complete = "" if record["complete"] else " (interrupted)"
        what = ", ".join(filter(None, [software, peers, machine["compiler"]]))
        load = machine["load_average"][0] if machine["load_average"] else None
        noise = [result["preempted_per_s"] for result in record["results"] if result["rows"]]
        quiet = f"load {load:.1f}, preempted {max(noise, default=0):.0f} times a second at most" if load else ""
        clock = f"{machine['clock_mhz']:.0f} MHz" if machine.get("clock_mhz") else ""
        when = f"{machine['date'][:10]}, {machine['commit']}"
        how = ", ".join(filter(None, [clock, quiet]))
        rows.append([f"`{record['command']}`{complete}", name, when, what, roofs_of(record), how])
    return table(["command", "record", "date, commit", "versions", "copy and matrix product", "how quiet"], rows)


def roofs_of(record):
    """What a copy and a matrix product reached in that run."""
    rates = [(where, copy["gb_per_s"], "GB/s") for where, copy in record["copy"].items()]
    rates += [(where, rate["gflop_per_s"], "GFLOP/s") for where, rate in record["matmul"].items()]
    return ", ".join(f"{where.replace('_', ' ')} {rate['median']:.3g} {unit}" for where, rate, unit in rates)
