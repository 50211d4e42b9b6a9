"""Two records of the same machine, row by row: faster, slower, same, or too noisy to say."""

from rich import box
from rich.table import Table
from rich.text import Text

from .records import packages_of_peers

MARGIN = 0.05  # nobody acts on less
STYLES = {"faster": "green", "slower": "red", "same": "", "unclear": "yellow"}


def verdict(before, after):
    """From the quartiles of both: what holds for every pairing of a value inside one with a value inside the other."""
    low, high = after["q1"] / before["q3"], after["q3"] / before["q1"]
    if low >= 1 - MARGIN and high <= 1 + MARGIN:
        return "same"
    if high < 1:
        return "faster"
    if low > 1:
        return "slower"
    return "unclear"


def refuse_apples_and_pears(a, b):
    """
    Raises:
        ValueError: the two were not read under the same conditions, so their times say nothing about the code.
    """
    for key in ("device", "threads", "dtype"):
        if a["machine"][key] != b["machine"][key]:
            raise ValueError(f"not comparable: {key} is {a['machine'][key]!r} in A and {b['machine'][key]!r} in B")
    modes = {result["case"]: result.get("mode") for result in a["results"] if result["rows"]}
    for result in b["results"]:
        before, after = modes.get(result["case"]), result.get("mode")
        if before and after and before != after:
            raise ValueError(f"not comparable: {result['case']} was timed by {before!r} in A and by {after!r} in B")


def warnings(a, b):
    """What differs and may explain a difference, or weakens it."""
    for key in ("system", "cores", "cpu_capability", "cache_bytes", "torch", "triton", "cuda", "python", "compiler"):
        before, after = (record["machine"].get(key) for record in (a, b))
        if before != after:
            yield f"{key} is {before} in A and {after} in B"
    peers = [", ".join(packages_of_peers(record)) for record in (a, b)]
    if all(peers) and peers[0] != peers[1]:
        yield f"packages of the peers: {peers[0]} in A and {peers[1]} in B"
    for name, record in (("A", a), ("B", b)):
        if not record["complete"]:
            yield f"{name} was interrupted"
        for result in record["results"]:
            for fault in result["faults"]:
                yield f"{result['case']} was not timed in {name}: {fault['contender']} was wrong, {fault['fault']}"


def rows(record):
    return {(r["case"], row["contender"]): row["seconds"] for r in record["results"] for row in r["rows"]}


def table(a, b):
    before, after = rows(a), rows(b)
    out = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("case", "contender", "time in B ÷ A", "verdict"):
        out.add_column(heading, no_wrap=True)
    for key in dict.fromkeys((*before, *after)):
        if key not in before or key not in after:
            out.add_row(*key, "", Text(f"only in {'A' if key in before else 'B'}", style="dim"))
            continue
        said = verdict(before[key], after[key])
        out.add_row(*key, f"{after[key]['median'] / before[key]['median']:.2f}", Text(said, style=STYLES[said]))
    return out
