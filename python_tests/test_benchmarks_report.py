"""The page, its pictures and the README's summary follow from the records alone."""

import copy
import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytest.importorskip("tyro")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")


@pytest.fixture
def house(tmp_path):
    """A repository as far as the report writes to it, and a folder of records."""
    (tmp_path / "README.md").write_text(
        "before\n<!-- benchmarks: written by python -m benchmarks report -->\nstale\n<!-- /benchmarks -->\nafter\n"
    )
    (tmp_path / "results").mkdir()
    return tmp_path


def spread(median):
    return {"median": median, "q1": 0.9 * median, "q3": 1.1 * median}


def row(contender, role, seconds, ours, without=None):
    return {
        "contender": contender,
        "role": role,
        "backend": None,
        "first_call_s": 2.5 if contender == "jax" else 0.1,
        "calls_per_sample": 1,
        "seconds": spread(seconds),
        "samples_s": [seconds] * 3,
        "gb_per_s": 1.0,
        "gflop_per_s": 50.0,
        "peak_bytes": 2**20,
        "share_of_floor": spread(0.5),
        "times_ours": spread(seconds / ours),
        "times_without": without and spread(seconds / without),
    }


def result(case, *rows, axis=None, least=None, floor="matmul"):
    return {
        "case": case,
        "what": "an update",
        "axis": axis,
        "status": "green",
        "faults": [],
        "skipped": [{"contender": "keras", "reason": "not installed: no keras"}],
        "mode": "",
        "rounds": 3,
        "threads": 2,
        "bytes": 1000,
        "operations": 100_000,
        "floor": floor,
        "least_times_without": least,
        "preempted_per_s": 1.0,
        "left_out": [],
        "rows": list(rows),
    }


def record(*results, date="2026-01-02", command="python -m benchmarks run x", kind="cpu", vectors="AVX2"):
    machine = {
        "device": "A machine",
        "kind": kind,
        "cpu_capability": vectors,
        "threads": 2,
        "dtype": "float32",
        "cores": 2,
        "torch": "9.9",
        "triton": None,
        "python": "3.12",
        "cuda": None,
        "compiler": "c++ 1",
        "commit": "abc",
        "date": f"{date}T00:00:00+00:00",
        "load_average": [0.5, 0, 0],
        "clock_mhz": 2650.0,
    }
    return {
        "schema": 2,
        "complete": True,
        "command": command,
        "rounds": 3,
        "machine": machine,
        "copy": {"out_of_cache": {"gb_per_s": spread(20.0)}},
        "matmul": {"in_cache": {"gflop_per_s": spread(100.0)}},
        "peers": {"jax": {"jax": "0.1"}},
        "results": list(results),
    }


def save(house, name, content):
    (house / "results" / name).write_text(json.dumps(content))


def report(cli, house):
    return cli(["report", "--results", str(house / "results"), "--into", str(house)])


STEP = result(
    "critic_step/s3/64x1x28x28",
    row("wgan_kernels", "ours", 0.017, 0.017, 0.010),
    row("eager", "baseline", 0.025, 0.017, 0.010),
    row("jax", "baseline", 0.0085, 0.017, 0.010),
    row("without penalty", "unit", 0.010, 0.017),
    row("matmul", "floor", 0.0085, 0.017),
    least=5 / 3,
)
ITERATION = result("iteration/s3", row("wgan_kernels", "ours", 0.1, 0.1), row("eager", "baseline", 0.15, 0.1))
POINTS = [
    result(f"scaling/batch/{n}", row("wgan_kernels", "ours", 1e-3 * n, 1e-3 * n), axis=["batch", n]) for n in (1, 8, 64)
]


def test_the_page_says_what_the_records_say(cli, house, capsys):
    save(house, "a.json", record(STEP, ITERATION, *POINTS))
    assert report(cli, house) == 0
    page = (house / "docs/benchmarks.md").read_text()
    for words in (
        "A machine, AVX2, 2 threads, float32",
        "`python -m benchmarks run x`",
        "torch 9.9",
        "jax 0.1",
        "2026-01-02, abc",
        "| case | ours | of the floor | eager ÷ ours | jax ÷ ours |",
        "| `critic_step/s3/64x1x28x28`<br>an update | 17 ms [15.3 – 18.7] | 50% of matmul | 1.47 [1.32 – 1.62] | **",
        "| out of cache 20 GB/s, in cache 100 GFLOP/s | 2650 MHz, load 0.5, preempted 1 times a second at most |",
        "| 1.67 | wgan_kernels 1.7 [1.53 – 1.87]; eager 2.5 [2.25 – 2.75]",
        "A baseline was faster in 1 of 3 comparisons: `critic_step/s3/64x1x28x28` jax 0.5.",
        "not installed: no keras",
        "`critic_step/s3/64x1x28x28` jax 2.5 s",
        "## GPU\n\nNot measured",
    ):
        assert words in page, words
    pictures = {path.name: path for path in (house / "docs/img").iterdir()}
    for name in ("updates", "iteration", "overhead", "roofline", "scaling"):
        file = f"benchmarks-cpu-a-machine-avx2-2-float32-{name}.png"
        assert pictures[file].read_bytes().startswith(b"\x89PNG") and f"](img/{file})" in page
    readme = (house / "README.md").read_text()
    assert readme.startswith("before\n<!--") and readme.endswith("<!-- /benchmarks -->\nafter\n")
    assert "stale" not in readme and "| `iteration/s3` | 100 ms | 50% of matmul | 1.5 |" in readme
    assert "GPU: not measured." in readme
    assert report(cli, house) == 0 and (house / "README.md").read_text() == readme


def test_a_newer_record_takes_the_place_of_an_older_one_case_by_case(cli, house):
    faster = copy.deepcopy(ITERATION)
    faster["rows"][0]["seconds"] = spread(0.05)
    save(house, "b.json", record(STEP, ITERATION, date="2026-01-02"))
    save(house, "a.json", record(faster, date="2026-01-03", command="python -m benchmarks run iteration"))
    assert report(cli, house) == 0
    page = (house / "docs/benchmarks.md").read_text()
    assert "`iteration/s3`<br>an update | 50 ms" in page and "| 100 ms" not in page and "`critic_step/s3" in page
    assert "`python -m benchmarks run iteration`" in page and "`python -m benchmarks run x`" in page


def test_a_red_case_has_no_speed(cli, house):
    red = result("iteration/s3") | {"status": "red", "faults": [{"contender": "jax", "fault": "far away"}]}
    save(house, "a.json", record(red, STEP))
    assert report(cli, house) == 0
    assert "| `iteration/s3`<br>an update | **red**: jax far away |  |" in (house / "docs/benchmarks.md").read_text()


def test_a_tie_is_no_clear_loss(cli, house):
    from benchmarks.markdown import losses_text

    tie, loss, win = (row(name, "baseline", seconds, 1.0) for name, seconds in (("a", 0.95), ("b", 0.5), ("c", 2)))
    assert losses_text([result("x", tie, loss, win)]) == (
        "A baseline was faster in 1 of 3 comparisons: `x` b 0.5. "
        "By the median alone, with quartiles on both sides of 1: `x` a 0.95."
    )
    assert losses_text([result("x", win)]) == "No baseline was faster in any of 1 comparisons."


def test_a_picture_names_the_runs_and_versions_of_its_own_results_alone(cli, house, monkeypatch):
    from benchmarks import plots

    shown = {}

    def remember(part, path):
        shown[path.name.rpartition("-")[2]] = (
            part["command"],
            part["peers"],
            part["machine"]["date"][:10],
            part["copy"],
        )
        return True

    monkeypatch.setattr(plots, "draw", remember)
    clip = result("clip/1000x4", row("wgan_kernels", "ours", 1e-4, 1e-4), row("loop", "baseline", 1e-3, 1e-4))
    slower = record(clip, date="2026-01-01", command="clip") | {"copy": {"out_of_cache": {"gb_per_s": spread(30.0)}}}
    save(house, "a.json", slower)
    save(house, "b.json", record(STEP, ITERATION, date="2026-01-03", command="step"))
    assert report(cli, house) == 0
    twenty, thirty = ({"out_of_cache": {"gb_per_s": spread(speed)}} for speed in (20.0, 30.0))
    assert shown["kernels.png"] == ("clip", {}, "2026-01-01", thirty)
    assert shown["updates.png"] == ("step", {"jax": {"jax": "0.1"}}, "2026-01-03", twenty)

    from benchmarks.report import collect, part_of

    ((_, merged, _),) = collect(house / "results")
    assert part_of(merged, merged["results"])["copy"] == thirty
    assert [each["case"] for each in merged["results"]] == ["clip/1000x4", STEP["case"], "iteration/s3"]


def test_processes_stand_beside_their_estimate_and_what_is_assumed_is_called_so(cli, house):
    parts = {"alone": 0.010, "together, no exchange": 0.011, "all-reduce, small": 0.001, "all-reduce, large": 0.005}
    rows = [row(name, "unit", seconds, 0.016) for name, seconds in parts.items()]
    rows += [row("wgan_kernels", "ours", 0.016, 0.016), row("on paper", "estimate", 0.012, 0.016)]
    two = result("scaling/processes/2", *rows, axis=["processes", 2])
    two["paper"] = {"processes": 2, "bytes": 1_000_000, "large_bytes": 4_000_000}
    one = result("scaling/processes/1", row("wgan_kernels", "ours", 0.01, 0.01), axis=["processes", 1])
    save(house, "a.json", record(one, two))
    assert report(cli, house) == 0
    page = (house / "docs/benchmarks.md").read_text()
    for words in (
        "| 2 | 10 ms [9 – 11] | 11 ms [9.9 – 12.1] | 1000 µs and 1 GB/s | 2 ms | 12 ms [10.8 – 13.2] | 16 ms [14.4",
        "| 0.75 [0.675 – 0.825] | 0.625 [0.562 – 0.688] |",
        "**where nothing was measured**: 1 MB",
        "On paper t(N) = t(1) + latency + 2(N − 1)/N · bytes ÷ bandwidth: t(1) is the step of one process",
        "| 10 Gbit/s Ethernet: 1.25 GB/s, 100 µs | 1 ms | 1.9 ms, 53% | 2.5 ms, 40% |",
    ):
        assert words in page, words
    save(house, "a.json", record(one))
    assert report(cli, house) == 0
    assert "Several processes" not in (house / "docs/benchmarks.md").read_text()


def test_a_gpu_is_a_section_of_its_own_and_no_longer_missing(cli, house):
    save(house, "a.json", record(ITERATION))
    save(house, "b.json", record(STEP, kind="cuda"))
    assert report(cli, house) == 0
    page = (house / "docs/benchmarks.md").read_text()
    assert page.count("## A machine") == 2 and "Not measured" not in page
    assert "not measured" not in (house / "README.md").read_text()


def test_a_processor_with_other_vectors_is_a_section_of_its_own(cli, house):
    save(house, "a.json", record(ITERATION))
    save(house, "b.json", record(STEP, vectors="AVX512"))
    assert report(cli, house) == 0
    page = (house / "docs/benchmarks.md").read_text()
    for vectors in ("AVX2", "AVX512"):
        assert page.count(f"## A machine, {vectors}, 2 threads, float32") == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda house: (house / "results/a.json").unlink(), "no record in"),
        (lambda house: (house / "results/a.json").write_text('{"schema": 1}'), "not a benchmark record of schema 2"),
        (lambda house: (house / "README.md").write_text("no markers"), "no single pair of markers"),
        (lambda house: (house / "README.md").unlink(), "README.md"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(cli, house, capsys, spoil, said):
    save(house, "a.json", record(ITERATION))
    spoil(house)
    before = sorted(house.iterdir()), [path.read_text() for path in house.glob("README.md")]
    assert report(cli, house) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and said in captured.err and captured.err.count("\n") == 1
    assert before == (sorted(house.iterdir()), [path.read_text() for path in house.glob("README.md")])


def test_the_slope_is_the_exponent(cli):
    from benchmarks.figures import slope

    assert math.isclose(slope([(n, 3 * n**1.5) for n in (1, 10, 1000)]), 1.5)


def test_the_readme_has_its_markers():
    from benchmarks import report

    text = (ROOT / "README.md").read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
