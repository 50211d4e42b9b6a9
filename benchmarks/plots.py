"""A record as one picture: how many times as long as ours each baseline took, with its spread."""

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from .records import device_of, packages_of_peers

COLOURS = {
    "wgan_kernels": "#222255",
    "loop": "#4477aa",
    "foreach": "#66ccee",
    "eager": "#228833",
    "plain": "#999933",
    "compile": "#ccbb44",
    "fused": "#ee6677",
    "drop-in": "#aa3377",
    "jax": "#ee8866",
    "keras": "#bbbbbb",
}


def colour_of(contender):
    return COLOURS.get(contender, "#000000")


def where(machine):
    """Device, threads and precision, which times are comparable within."""
    return f"{device_of(machine)}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}, {machine['dtype']}"


def legend_below(figure, axes):
    """Where it hides no bar, in as many columns as the picture has room for."""
    handles, labels = axes.get_legend_handles_labels()
    room = int(16 * figure.get_figwidth()) // (max(map(len, labels)) + 8)  # 16 letters an inch; the sign and a space
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(5, len(labels), room)), fontsize=8)


def finish(figure, record, path):
    """What a picture has to say of its origin; writes it and returns True."""
    machine = record["machine"]
    lines = [
        f"{where(machine)}, {machine['date'][:10]}, commit {machine['commit']}",
        ", ".join([f"torch {machine['torch']}", *packages_of_peers(record)]),
        *(textwrap.fill(command, 110) for command in record["command"].splitlines()),
    ]
    figure.suptitle("\n".join(lines), size=8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def draw(record, path):
    """Writes the picture of the ratios and returns True, or False where nothing was timed against a baseline."""
    bars = [
        (result["case"], row["contender"], row["times_ours"])
        for result in record["results"]
        for row in result["rows"]
        if row["role"] == "baseline" and not result["axis"]
    ]
    if not bars:
        return False
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.28 * len(bars)), layout="constrained")
    places, place, previous = [], 0.0, bars[0][0]
    for case, _, _ in bars:
        place += 1.6 if case != previous else 1.0
        places.append(place)
        previous = case
    seen = set()
    for y, (_, contender, ratio) in zip(places, bars, strict=True):
        median = ratio["median"]
        axes.barh(
            y,
            median - 1,
            left=1,
            height=0.85,
            color=colour_of(contender),
            label=None if contender in seen else contender,
            xerr=[[median - ratio["q1"]], [ratio["q3"] - median]],
            error_kw={"ecolor": "#333333", "capsize": 2, "linewidth": 1},
        )
        seen.add(contender)
        anchor, side, shift = (ratio["q3"], "left", 4) if median >= 1 else (ratio["q1"], "right", -4)
        axes.annotate(
            f"{median:.2f}×", (anchor, y), (shift, 0), textcoords="offset points", va="center", ha=side, size=8
        )
    cases = dict.fromkeys(case for case, _, _ in bars)
    middles = [[y for y, bar in zip(places, bars, strict=True) if bar[0] == case] for case in cases]
    axes.set_yticks([sum(ys) / len(ys) for ys in middles], cases)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.01)
    axes.invert_yaxis()
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set_xlabel("time of the baseline ÷ ours (median and quartiles):\nright of 1 we are faster, left of 1 slower")
    legend_below(figure, axes)
    return finish(figure, record, path)
