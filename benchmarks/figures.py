"""The pictures of the report: roofline, overhead of a penalty, iterations, scaling. ``plots.py`` draws the ratios."""

import math

from matplotlib import pyplot as plt
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from .case import OURS
from .cases.scaling import AXES
from .plots import colour_of, finish, legend_below

FAMILIES = ("o", "s", "^", "v", "D", "P", "X", "*", "<", ">", "h")  # markers


def rows_of(results, contender):
    for result in results:
        for row in result["rows"]:
            if row["contender"] == contender:
                yield result, row


def roofline(record, path):
    """Ours among the roofs that were measured in the same run."""
    points = [
        (result["case"].partition("/")[0], result["operations"] / result["bytes"], row["gflop_per_s"])
        for result, row in rows_of(record["results"], OURS)
        if result["operations"] and result["bytes"] and not result["axis"]
    ]
    if not points or not record["copy"] or not record["matmul"]:
        return False
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    peak = max(rate["gflop_per_s"]["median"] for rate in record["matmul"].values())
    left, right = min(0.05, *(x for _, x, _ in points)), 4 * max(x for _, x, _ in points)
    for (where, copy), dashes in zip(record["copy"].items(), ("-", "--"), strict=False):
        bandwidth = copy["gb_per_s"]["median"]
        xs = [left, peak / bandwidth, right]
        label = f"copy {where.replace('_', ' ')}, {bandwidth:.3g} GB/s; matrix product, {peak:.3g} GFLOP/s"
        axes.plot(xs, [min(peak, bandwidth * x) for x in xs], dashes, color="#333333", linewidth=1, label=label)
    for marker, family in zip(FAMILIES, dict.fromkeys(family for family, _, _ in points), strict=False):
        xs, ys = zip(*[(x, y) for of, x, y in points if of == family], strict=True)
        axes.plot(xs, ys, marker, label=family, markersize=7, alpha=0.8)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte that must move", ylabel="GFLOP/s reached by ours")
    legend_below(figure, axes)
    return finish(figure, record, path)


def overhead(record, path):
    """A critic step with the penalty over one without, and how little it could be."""
    results = [result for result in record["results"] if result.get("least_times_without") and result["rows"]]
    if not results:
        return False
    return grouped(
        results,
        lambda row: row["times_without"] if row["role"] in ("ours", "baseline") else None,
        "critic step with the penalty ÷ plain loop without (median and quartiles)\nblack: the floor of the arithmetic",
        record,
        path,
        least=[result["least_times_without"] for result in results],
    )


def iteration(record, path):
    """Seconds of a whole iteration."""
    results = [result for result in record["results"] if result["case"].startswith("iteration/") and result["rows"]]
    if not results:
        return False
    milliseconds = lambda row: {key: 1e3 * value for key, value in row["seconds"].items()}  # noqa: E731
    return grouped(
        results,
        lambda row: milliseconds(row) if row["role"] in ("ours", "baseline") else None,
        "ms per iteration (median and quartiles)",
        record,
        path,
    )


def grouped(results, value_of, label, record, path, least=None):
    """Bars from zero, one group for each case."""
    figure, axes = plt.subplots(figsize=(9, 1.4 + 0.9 * len(results)), layout="constrained")
    seen = set()
    for place, result in enumerate(results):
        bars = [(row["contender"], value) for row in result["rows"] if (value := value_of(row))]
        height = 0.8 / len(bars)
        for index, (contender, value) in enumerate(bars):
            y, median = place - 0.4 + (index + 0.5) * height, value["median"]
            axes.barh(
                y,
                median,
                height=0.9 * height,
                color=colour_of(contender),
                label=None if contender in seen else contender,
                xerr=[[median - value["q1"]], [value["q3"] - median]],
                error_kw={"ecolor": "#333333", "capsize": 2, "linewidth": 1},
            )
            axes.annotate(
                f"{median:.0f}" if median >= 100 else f"{median:.3g}",
                (value["q3"], y),
                (4, 0),
                textcoords="offset points",
                va="center",
                size=7.5,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=5,  # before the floor
            )
            seen.add(contender)
        if least:
            axes.plot([least[place]] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.set_yticks(range(len(results)), [result["case"] for result in results])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    legend_below(figure, axes)
    return finish(figure, record, path)


def slope(points):
    """Least squares of log y over log x: 1 where cost grows in proportion."""
    xs, ys = zip(*[(math.log(x), math.log(y)) for x, y in points], strict=True)
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x0) ** 2 for x in xs)
    return sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True)) / spread if spread else math.nan


def curves(record):
    """{axis: {contender: [(value, median seconds)]}}, by value; an estimate is a line, too."""
    found = {}
    for result in record["results"]:
        for row in result["rows"] if result["axis"] else ():
            if row["role"] in ("ours", "baseline", "estimate"):
                axis, value = result["axis"]
                line = found.setdefault(axis, {}).setdefault(row["contender"], [])
                line.append((value, row["seconds"]["median"]))
    return {axis: {name: sorted(line) for name, line in lines.items()} for axis, lines in found.items()}


def scaling(record, path):
    """Time over size, both logarithmic, with the slope of the upper half of each line."""
    found = {axis: lines for axis, lines in curves(record).items() if len(next(iter(lines.values()))) > 1}
    if not found:
        return False
    columns = min(4, math.ceil(len(found) / 2))
    rows = math.ceil(len(found) / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.6 * rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for axes, (axis, lines) in zip(grid.flat, found.items(), strict=False):
        for contender, points in lines.items():
            upper = points[len(points) // 2 - (len(points) == 2) :]
            label = contender if len(points) == 1 else f"{contender}: {slope(upper):.2f}"
            axes.plot(*zip(*points, strict=True), "o-", color=colour_of(contender), markersize=4, label=label)
        axes.set(xscale="log", yscale="log", xlabel=axis)
        axes.set_title(AXES.get(axis, ""), size=9)
        axes.xaxis.set_minor_formatter(NullFormatter())
        if max(x for x, _ in next(iter(lines.values()))) < 10_000:
            values = [x for x, _ in next(iter(lines.values()))]
            axes.set_xticks(values, [f"{x:g}" for x in values])
        seconds = [y for points in lines.values() for _, y in points]
        if max(seconds) < 50 * min(seconds):
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(EngFormatter("s"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(title="slope, upper half", title_fontsize=7, fontsize=7)
    return finish(figure, record, path)
