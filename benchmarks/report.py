"""``docs/benchmarks.md``, its pictures and the README's summary, from the records in ``results/`` and nothing else.

Records of one device, number of threads and precision are one section: each case as its newest record has it.
"""

import re
from pathlib import Path

from . import figures, markdown, plots, records
from .cases import CASES

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- benchmarks: written by python -m benchmarks report -->", "<!-- /benchmarks -->"
FAMILIES = {  # what the page has headings for
    "Kernels": ("clip", "interpolate", "norm_penalty", "wasserstein", "layer_norm", "winograd"),
    "Optimizers": ("rmsprop", "adam"),
    "Penalties": ("gradient_penalty",),
    "Updates": ("critic_step", "iteration", "time_to_quality"),
}
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
    "iteration/s0-clip",
    "iteration/s3-clip",
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
        key = (machine["kind"], records.device_of(machine), machine["threads"], machine["dtype"])
        groups.setdefault(key, []).append((path.name, record))
    sections = []
    for key in sorted(groups):
        sources = sorted(groups[key], key=lambda source: source[1]["machine"]["date"])
        slug = "-".join(re.sub(r"[^a-z0-9]+", "-", str(part).lower()).strip("-") for part in key)
        sections.append((slug, merged([record for _, record in sources]), sources))
    return sections


def merged(sources):
    """One record, oldest first: what a later one measured takes the place of what an earlier one did.

    Each result has its own record, without the results, as ``source``.
    """
    results = {}
    for record in sources:
        source = {key: value for key, value in record.items() if key != "results"}
        results |= {result["case"]: result | {"source": source} for result in record["results"]}
    order = {case.name: place for place, case in enumerate(CASES)}
    return sources[-1] | {"results": sorted(results.values(), key=lambda result: order.get(result["case"], len(order)))}


def part_of(record, results):
    """A record of these results alone, which says where and when they came about, and with whom."""
    sources = [result["source"] for result in results]
    taking_part = {row["contender"] for result in results for row in result["rows"]}
    peers = {name: of for source in sources for name, of in source["peers"].items() if name in taking_part}
    commands = dict.fromkeys(source["command"] for source in sources)
    newest = max(sources, key=lambda source: source["machine"]["date"], default=record)
    roofs = {"copy": highest(sources, "copy", "gb_per_s"), "matmul": highest(sources, "matmul", "gflop_per_s")}
    return newest | roofs | {"results": results, "peers": peers, "command": "\n".join(commands)}


def highest(sources, kind, rate):
    """Of each roof the highest that any of the runs has measured."""
    roofs = {}
    for source in sources:
        for where, roof in source[kind].items():
            if where not in roofs or roof[rate]["median"] > roofs[where][rate]["median"]:
                roofs[where] = roof
    return roofs


def section(slug, record, sources, images):
    """One device. Writes its pictures into ``images``."""
    out = [f"## {plots.where(record['machine'])}", markdown.sources_table(sources)]
    plain = [result for result in record["results"] if not result["axis"]]
    points = [result for result in record["results"] if result["axis"]]

    def of(*ops):
        return [result for result in plain if result["case"].partition("/")[0] in ops]

    def picture(draw, name, said, results):
        path = images / f"benchmarks-{slug}-{name}.png"
        path.unlink(missing_ok=True)
        if draw(part_of(record, results), path):
            out.append(f"![{said}](img/{path.name})")

    out.append(markdown.losses_text(plain))
    for title, ops in FAMILIES.items():
        if results := of(*ops):
            out += [f"### {title}", markdown.results_table(results)]
            picture(plots.draw, title.lower(), "time of each baseline over ours", results)
    picture(figures.iteration, "iteration", "milliseconds of a whole iteration", of("iteration"))
    if overheads := markdown.overhead_table(plain):
        out += ["### What a penalty adds", overheads]
        picture(figures.overhead, "overhead", "critic step with the penalty over one without", of("critic_step"))
    if memory := markdown.memory_table(plain):
        out += ["### Memory", memory]
    out.append("### Limits")
    picture(figures.roofline, "roofline", "GFLOP/s over operations per byte", plain)
    if points:
        out += ["### Scaling", markdown.losses_text(points)]
        picture(figures.scaling, "scaling", "time over size", points)
        out.append(markdown.results_table(points))
    if processes := markdown.processes_text(points):
        out += ["### Several processes", processes]
    missing = markdown.missing_text(record["results"])
    out += filter(None, ["### Left out", markdown.first_calls_text(record["results"]), missing])
    return "\n\n".join(out)


def headlines(record):
    """The README's part: some cases of each kind, and every loss among all."""
    by_name = {result["case"]: result for result in record["results"]}
    chosen = [by_name[name] for name in HEADLINES if name in by_name]
    plain = [result for result in record["results"] if not result["axis"]]
    return f"{markdown.results_table(chosen or plain, compact=True)}\n\n{markdown.losses_text(plain)}"


def summary(sections):
    parts = []
    for slug, record, _ in sections:
        machine = record["machine"]
        parts += [
            f"{plots.where(machine)}, torch {machine['torch']}, {machine['date'][:10]}; medians of interleaved "
            "rounds, each contender checked first, losses bold. All of it: [docs/benchmarks.md](docs/benchmarks.md).",
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
        "mean: [benchmarking.md](benchmarking.md). A baseline's cell is its time ÷ ours, median [quartiles]; bold "
        "where it was faster.",
        *(section(*each, images) for each in sections),
    ]
    if not any(record["machine"]["kind"] == "cuda" for _, record, _ in sections):
        parts.append("## GPU\n\nNot measured: nothing here has run on one.")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    readme.write_text(text, encoding="utf-8")
    return page, readme
