"""``docs/benchmarks.md``, its pictures and the README's summary, from the records in ``results/`` and nothing else.

Records of one device, number of threads and precision are one section: each case as its newest record has it.
"""

import re
from pathlib import Path

from . import figures, plots, records
from .case import OURS
from .tables import ratio_text, spread_of, time_of

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- benchmarks: written by python -m benchmarks report -->", "<!-- /benchmarks -->"
KERNELS = ("clip", "interpolate", "norm_penalty", "wasserstein", "layer_norm")
OPTIMIZERS = ("rmsprop", "adam")
UPDATES = ("gradient_penalty", "critic_step", "iteration", "time_to_quality")
HEADLINES = (
    "clip/1000x4",
    "clip/4x4194304",
    "interpolate/64x3x64x64/drawn",
    "norm_penalty/64x3x64x64",
    "wasserstein/64x1",
    "rmsprop/20x4096",
    "adam/20x4096",
    "gradient_penalty/s3",
    "gradient_penalty/s3-layer-norm",
    "gradient_penalty/dcgan64",
    "gradient_penalty/tiny",
    "critic_step/s3/64x1x28x28",
    "critic_step/s3-layer-norm/64x1x28x28",
    "critic_step/dcgan64/16x3x64x64",
    "iteration/s3",
    "iteration/s3-layer-norm",
    "iteration/s0",
)


def collect(folder):
    """The records of ``folder`` as sections, CPUs first: ``[(slug, merged record, [(file name, record)])]``.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise ValueError(f"no record in {folder}: python -m benchmarks run '*' --json makes one")
    groups = {}
    for path in paths:
        record = records.read(path)
        machine = record["machine"]
        key = (machine["kind"], machine["device"], machine["threads"], machine["dtype"])
        groups.setdefault(key, []).append((path.name, record))
    sections = []
    for key in sorted(groups):
        sources = sorted(groups[key], key=lambda source: source[1]["machine"]["date"])
        slug = "-".join(re.sub(r"[^a-z0-9]+", "-", str(part).lower()).strip("-") for part in key)
        sections.append((slug, merged([record for _, record in sources]), sources))
    return sections


def merged(sources):
    """One record, oldest first: what a later one measured takes the place of what an earlier one did."""
    results, last = {}, sources[-1]
    for record in sources:
        results |= {result["case"]: result for result in record["results"]}
    peers = {}
    for record in sources:
        peers |= record["peers"]
    commands = dict.fromkeys(record["command"] for record in sources)
    return last | {"results": list(results.values()), "peers": peers, "command": "\n".join(commands)}


def only(record, families):
    chosen = [result for result in record["results"] if result["case"].partition("/")[0] in families]
    return record | {"results": chosen}


def table(headings, rows):
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ours_of(result):
    return next((row for row in result["rows"] if row["contender"] == OURS), None)


def baselines_of(result):
    return [row for row in result["rows"] if row["role"] == "baseline"]


def share_of(result, row):
    share = row["share_of_floor"]
    return f"{share['median']:.0%} of {result['floor']}" if share else ""


def results_table(results):
    """A line for each case: ours, its share of the floor, and how many times as long each baseline took."""
    rows = []
    for result in results:
        ours = ours_of(result)
        if ours is None:
            rows.append([f"`{result['case']}`", f"**{result['status']}**", "", ""])
            continue
        others = "; ".join(f"{row['contender']} {ratio_text(row)}" for row in baselines_of(result))
        rows.append([f"`{result['case']}`", time_of(ours), share_of(result, ours), others])
    return table(["case", "ours", "of the floor", "baseline ÷ ours"], rows)


def lost(results):
    """Where a baseline was faster, by the medians."""
    return [
        f"`{result['case']}` {row['contender']} {row['times_ours']['median']:.3g}"
        for result in results
        for row in baselines_of(result)
        if row["times_ours"]["median"] < 1
    ]


def losses_text(results):
    pairs = sum(len(baselines_of(result)) for result in results)
    found = lost(results)
    if not pairs:
        return "No baseline was timed."
    if not found:
        return f"No baseline was faster in any of {pairs} comparisons."
    return f"A baseline was faster in {len(found)} of {pairs} comparisons: {', '.join(found)}."


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


def roofs_text(record):
    copies = (f"{where.replace('_', ' ')} {spread_of(copy['gb_per_s'])} GB/s" for where, copy in record["copy"].items())
    products = (
        f"{where.replace('_', ' ')} {spread_of(rate['gflop_per_s'])} GFLOP/s"
        for where, rate in record["matmul"].items()
    )
    return f"A copy reached {', '.join(copies)}; a matrix product {', '.join(products)}."


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
        peers = ", ".join(
            f"{package} {of}" for versions in record["peers"].values() for package, of in versions.items()
        )
        complete = "" if record["complete"] else " (interrupted)"
        what = ", ".join(filter(None, [software, peers, machine["compiler"]]))
        load = machine["load_average"][0] if machine["load_average"] else None
        noise = [result["preempted_per_s"] for result in record["results"] if result["rows"]]
        quiet = f"load {load:.1f}, preempted {max(noise, default=0):.0f} times a second at most" if load else ""
        rows.append(
            [f"`{record['command']}`{complete}", name, f"{machine['date'][:10]}, {machine['commit']}", what, quiet]
        )
    return table(["command", "record", "date, commit", "versions", "how quiet"], rows)


def section(slug, record, sources, images):
    """One device. Writes its pictures into ``images``."""
    machine = record["machine"]
    out = [
        f"## {plots.where(machine)}",
        sources_table(sources),
        roofs_text(record),
    ]

    def picture(draw, name, said, part=record):
        path = images / f"benchmarks-{slug}-{name}.png"
        path.unlink(missing_ok=True)
        if draw(part, path):
            out.append(f"![{said}](img/{path.name})")

    plain = [result for result in record["results"] if not result["axis"]]
    out.append(losses_text(plain))
    for title, families in (("Kernels", KERNELS), ("Optimizers", OPTIMIZERS), ("Penalties and updates", UPDATES)):
        part = only(record, families)
        if part["results"]:
            out += [f"### {title}", results_table(part["results"])]
            picture(plots.draw, title.partition(" ")[0].lower(), "time of each baseline over ours", part)
    picture(figures.iteration, "iteration", "milliseconds of a whole iteration")
    if overheads := overhead_table(plain):
        out += ["### What a penalty adds", overheads]
        picture(figures.overhead, "overhead", "critic step with the penalty over one without")
    if memory := memory_table(plain):
        out += ["### Memory", memory]
    out.append("### Limits")
    picture(figures.roofline, "roofline", "GFLOP/s over operations per byte")
    if figures.curves(record):
        out += ["### Scaling", losses_text([result for result in record["results"] if result["axis"]])]
        picture(figures.scaling, "scaling", "seconds over size")
    out += filter(None, ["### Left out", first_calls_text(plain), missing_text(record["results"])])
    return "\n\n".join(out)


def headlines(record):
    """The README's part: some cases of each kind, and every loss among all."""
    by_name = {result["case"]: result for result in record["results"]}
    chosen = [by_name[name] for name in HEADLINES if name in by_name]
    plain = [result for result in record["results"] if not result["axis"]]
    return f"{results_table(chosen or plain)}\n\n{losses_text(plain)}"


def summary(sections):
    parts = []
    for slug, record, _ in sections:
        machine = record["machine"]
        parts += [
            f"{plots.where(machine)}, torch {machine['torch']}, {machine['date'][:10]}; median and quartiles of "
            "interleaved rounds, each contender checked first. All of it: [docs/benchmarks.md](docs/benchmarks.md).",
            headlines(record),
        ]
        picture = f"docs/img/benchmarks-{slug}-iteration.png"
        if any(result["case"].startswith("iteration/") and result["rows"] for result in record["results"]):
            parts.append(f"![milliseconds of a whole iteration]({picture})")
    if not any(record["machine"]["kind"] == "cuda" for _, record, _ in sections):
        parts.append("GPU: not measured.")
    return "\n\n".join(parts)


def replace_between_markers(text, new):
    """
    Raises:
        ValueError: the markers are not there, once and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in after:
        raise ValueError(f"README.md has no single pair of markers {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def write(folder=records.RESULTS, root=ROOT):
    """Writes all of it, or nothing where a record or the README's markers are wrong. Returns both files, page first."""
    sections = collect(folder)
    readme = root / "README.md"
    text = replace_between_markers(readme.read_text(encoding="utf-8"), summary(sections))
    page, images = root / "docs/benchmarks.md", root / "docs/img"
    parts = [
        "# Benchmarks",
        "Written by `python -m benchmarks report` from `benchmarks/results/`; how times are taken, and what the words "
        "mean: [benchmarking.md](benchmarking.md).",
        *(section(*each, images) for each in sections),
    ]
    if not any(record["machine"]["kind"] == "cuda" for _, record, _ in sections):
        parts.append("## GPU\n\nNot measured: nothing here has run on one.")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    readme.write_text(text, encoding="utf-8")
    return page, readme
