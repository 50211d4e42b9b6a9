"""The benchmark command as a user meets it. Whether anything is fast is never asserted here."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent

pytest.importorskip("tyro")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")


def spread_is_ordered(spread):
    return 0 < spread["q1"] <= spread["median"] <= spread["q3"]


def test_list_names_every_case_and_baseline(cli, capsys):
    assert cli(["list"]) == 0
    out = capsys.readouterr().out
    for word in (
        "clip/1000x4",
        "interpolate/64x3x64x64/drawn",
        "norm_penalty/",
        "wasserstein/",
        "gradient_penalty/s3",
    ):
        assert word in out
    for peer in ("loop", "foreach", "eager", "compile"):
        assert f"  {peer} " in out


def test_run_writes_a_whole_record(cli, capsys, tmp_path):
    path, picture = tmp_path / "deep" / "a.json", tmp_path / "a.png"
    command = ["run", "clip/10x64", "wasserstein/64x1", "--repeat", "5", "--json", str(path), "--plot", str(picture)]
    assert cli(command) == 0
    record = json.loads(path.read_text())
    assert record["schema"] == 2 and record["complete"] is True and record["rounds"] == 5
    assert record["command"] == "python -m benchmarks run clip/10x64 wasserstein/64x1 --repeat 5"
    machine = record["machine"]
    assert machine["kind"] == "cpu" and machine["dtype"] == "float32" and machine["threads"] >= 1
    assert {"device", "cores", "torch", "triton", "python", "compiler", "commit", "date", "load_average"} <= set(
        machine
    )
    for clock in (machine["clock_mhz"], machine["clock_mhz_after"]):
        assert clock is None or 100 < clock < 10_000
    assert set(record["copy"]) == set(record["matmul"]) == {"in_cache", "out_of_cache"}
    clip, wasserstein = record["results"]
    assert (clip["case"], wasserstein["case"]) == ("clip/10x64", "wasserstein/64x1")
    assert [row["contender"] for row in clip["rows"]] == ["wgan_kernels", "loop", "foreach", "copy"]
    assert [row["role"] for row in clip["rows"]] == ["ours", "baseline", "baseline", "floor"]
    assert clip["bytes"] == 2 * 10 * 64 * 4 and clip["floor"] == "copy" and clip["mode"]
    for row in (*clip["rows"], *wasserstein["rows"]):
        assert len(row["samples_s"]) == 5 and row["calls_per_sample"] >= 1
        assert spread_is_ordered(row["seconds"]) and spread_is_ordered(row["times_ours"])
        assert spread_is_ordered(row["share_of_floor"]) and row["gb_per_s"] > 0
    assert clip["rows"][0]["times_ours"] == {"median": 1, "q1": 1, "q3": 1}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]
    out = capsys.readouterr().out
    assert "foreach" in out and "GB/s" in out and "\x1b" not in out


def test_peers_and_backends_choose_who_takes_part(cli, tmp_path):
    path = tmp_path / "a.json"
    words = [
        "run",
        "clip/10x64",
        "--repeat",
        "3",
        "--peers",
        "loop",
        "--backend",
        "reference",
        "cuda",
        "--json",
        str(path),
    ]
    assert cli(words) == 0
    (result,) = json.loads(path.read_text())["results"]
    assert [row["contender"] for row in result["rows"]] == ["wgan_kernels", "wgan_kernels [reference]", "loop", "copy"]
    (skipped,) = result["skipped"]
    assert skipped["contender"] == "wgan_kernels [cuda]" and skipped["reason"]


def forgets_to_clip(params, bound):
    """Wrong in value."""


def raises(params, bound):
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize(("broken", "said"), [(forgets_to_clip, "away from the reference"), (raises, "no such kernel")])
def test_a_wrong_contender_goes_untimed_and_fails_the_run(cli, capsys, monkeypatch, tmp_path, broken, said):
    monkeypatch.setattr("wgan_kernels.clip_", broken)
    path = tmp_path / "a.json"
    assert cli(["run", "clip/10x64", "--repeat", "3", "--json", str(path), "--plot", str(tmp_path / "a.png")]) == 1
    (result,) = json.loads(path.read_text())["results"]
    assert result["status"] == "red" and result["rows"] == [] and said in result["faults"][0]["fault"]
    out = capsys.readouterr().out
    table = out[out.index("contender") :]
    assert "WRONG" in table and not any(unit in table for unit in (" µs", " ms", " s ["))


def test_the_gate_sees_nan_shape_dtype_and_a_shared_eps(cli):
    import torch

    from benchmarks import gate
    from benchmarks.cases import find

    (case,) = find(["interpolate/64x1x28x28/given"])
    inputs = case.make(torch.device("cpu"), torch.float32)
    right = case.reference
    assert gate.fault(case, right, inputs) is None
    assert gate.fault(case, lambda *args: right(*args).index_fill(0, torch.tensor([63]), float("nan")), inputs)
    assert "shape" in gate.fault(case, lambda *args: right(*args)[:1], inputs)
    assert "float64" in gate.fault(case, lambda *args: right(*args).double(), inputs)

    (case,) = find(["interpolate/64x1x28x28/drawn"])
    assert gate.fault(case, lambda real, fake: real.lerp(fake, torch.rand(64, 1, 1, 1)), inputs[:2]) is None
    with pytest.raises(ValueError, match="same ε"):
        gate.fault(case, lambda real, fake: real.lerp(fake, 0.3), inputs[:2])


def as_at_a_terminal():
    """A shell that starts pytest in the background hands down an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_what_was_done(tmp_path):
    path = tmp_path / "a.json"
    command = [sys.executable, "-m", "benchmarks", "run", "clip/10x64", "clip/100x64", "--repeat", "3", "--json", path]
    # The second case sleeps, so that the signal finds it at work.
    slow = "import sys, time, runpy; import benchmarks.cases.clip as c; made = c.CASES[2].make\n"
    slow += "object.__setattr__(c.CASES[2], 'make', lambda *a: time.sleep(60) or made(*a))\n"
    slow += "runpy.run_module('benchmarks', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", slow, *command[3:]]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_at_a_terminal
    )
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and json.loads(path.read_text())["results"]):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    record = json.loads(path.read_text())
    assert process.returncode == 130 and "Traceback" not in err and "interrupted" in err
    assert record["complete"] is False
    assert [result["case"] for result in record["results"]] == ["clip/10x64"] and "clip/10x64" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "clop"], "unknown case 'clop'; known: clip/1000x4"),
        (["run", "clip*", "interpolate/7*"], "unknown case 'interpolate/7*'"),
        (["run", "clip", "--peers", "loup"], "unknown baseline 'loup'; known: loop"),
        (["run", "clip", "--backend", "fortran"], "fortran"),
        (["run", "clip", "--repeat", "1"], "at least 3"),
        (["run", "clip", "--threads", "0"], "at least 1"),
        (["run", "clip", "--threads", "99999999999999999999"], "at most 1024"),
        (["run", "clip/10x64", "--json", str(ROOT / "docs")], "docs: is a folder; name a file in it"),
        (["run", "clip/10x64", "--json", str(ROOT / "README.md" / "a.json")], "README.md is a file, not a folder"),
        (["run", "--json", "clip"], "--json clip: the name has to end in .json; a CASE goes before the flags"),
        (["run", "clip/10x64", "--plot", "a.foo"], "--plot a.foo: the name has to end in one of .png"),
        (["run", "clip/10x64", "--plot", "a"], "--plot a: the name has to end in one of .png"),
        (["run", "clip/10x64", "--plot", ""], "--plot .: the name has to end in one of .png"),
        (["compare", "nowhere.json", "nowhere.json"], "cannot read nowhere.json"),
        (["compare", str(ROOT / "pyproject.toml"), "nowhere.json"], "is not JSON"),
    ],
)
def test_a_mistake_is_one_line(cli, capsys, monkeypatch, words, said):
    monkeypatch.setattr("benchmarks.session.run_case", None)  # nothing is timed before it is seen
    assert cli(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: ") and said in captured.err


def test_a_disk_that_fills_up_is_said_on_one_line_and_keeps_the_record(cli, capsys, monkeypatch, tmp_path):
    path, measured = tmp_path / "a.json", []

    def fails(*arguments):
        raise OSError(28, "No space left on device", str(path))

    def red(case, settings, peers):
        measured.append(case.name)
        monkeypatch.setattr(os, "replace", fails)
        return {"case": case.name, "rows": []}

    monkeypatch.setattr("benchmarks.session.run_case", red)
    assert cli(["run", "clip/10x64", "--repeat", "3", "--json", str(path)]) == 2
    assert measured == ["clip/10x64"] and json.loads(path.read_text())["results"] == []
    (said,) = capsys.readouterr().err.strip().splitlines()  # below the place of the progress display
    assert said.startswith("error: ") and "No space left on device" in said
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_before_the_first_case_is_no_traceback(cli, capsys, monkeypatch):
    def pressed(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.machine.describe", pressed)
    assert cli(["run", "clip/10x64"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_picture_is_not_drawn_over_a_folder(cli, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.session.run_case", None)
    (tmp_path / "a.png").mkdir()
    assert cli(["run", "clip/10x64", "--plot", str(tmp_path / "a.png")]) == 2
    assert "a.png: is a folder; name a file in it" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(cli, capsys):
    with pytest.raises(SystemExit) as ended:
        cli([])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(command in out for command in ("list", "run", "compare", "report"))


def test_globs_and_ops_find_cases(cli):
    from benchmarks.cases import CASES, find

    assert find([]) == list(CASES)
    assert {case.op for case in find(["clip", "*/64x1x28x28/given"])} == {"clip", "interpolate"}
    assert len({case.name for case in CASES}) == len(CASES)


def test_what_is_not_run_is_said(cli, capsys, tmp_path):
    path = tmp_path / "a.json"
    cases = ["time_to_quality", "scaling/elements/1000000000", "scaling/tensors/10"]
    assert cli(["run", *cases, "--quick", "--repeat", "3", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert [result["case"] for result in record["results"]] == ["scaling/tensors/10"]
    assert record["results"][0]["axis"] == ["tensors", 10]
    out = capsys.readouterr().out
    assert "not run: time_to_quality/8-gaussians: too large for --quick" in out
    assert "not run: scaling/elements/1000000000: for --device cuda" in out


def test_a_case_begins_no_round_after_its_seconds_but_has_three(cli):
    import torch

    from benchmarks.cases import find
    from benchmarks.harness import Settings, run_case

    (case,) = find(["clip/10x64"])
    short = Settings(torch.device("cpu"), torch.float32, 1, 40, seconds=0.0)
    assert run_case(case, short)["rounds"] == 3


def test_an_update_stands_beside_one_without_penalty_and_its_floor(cli):
    import torch

    from benchmarks.cases import find
    from benchmarks.contenders import product_of
    from benchmarks.harness import Settings, run_case, spread

    settings = Settings(torch.device("cpu"), torch.float32, 1, 3, peers=("eager",), seconds=0.0)
    assert product_of(2 * 3 * 8**3, settings, side=8)[0].scale == 3
    result = run_case(find(["critic_step/mlp/64x784"])[0], settings)
    rows = {row["contender"]: row for row in result["rows"]}
    assert set(rows) == {"wgan_kernels", "eager", "without penalty", "matmul"} and result["floor"] == "matmul"
    assert result["least_times_without"] == 10 / 6 and rows["without penalty"]["role"] == "unit"
    for row in rows.values():
        pairs = zip(row["samples_s"], rows["without penalty"]["samples_s"], strict=True)
        assert row["times_without"] == spread([mine / plain for mine, plain in pairs])
        rate = result["operations"] / row["seconds"]["median"] / 1e9
        assert row["gflop_per_s"] == (None if row["role"] == "unit" else rate)  # which does less


def test_peak_memory_is_what_lives_at_once(cli):
    import torch

    from benchmarks.memory import peak_bytes

    def run(start):
        kept = start + 1
        for _ in range(3):
            kept = kept + torch.ones(1000)

    assert 3 * 4000 <= peak_bytes(run, (torch.ones(1000),)) < 3 * 4000 + 1000


def test_graphs_are_for_gpus(cli, capsys):
    assert cli(["run", "clip", "--graphs"]) == 2
    assert "--graphs: CUDA graphs need --device cuda" in capsys.readouterr().err


def test_a_bare_json_names_the_file_by_device_and_date(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.records.RESULTS", tmp_path)
    assert cli(["run", "wasserstein/64x1", "--json", "--repeat", "3"]) == 0
    (path,) = tmp_path.iterdir()
    assert path.suffix == ".json" and json.loads(path.read_text())["machine"]["date"][:10] in path.name


def record_of(**seconds):
    """A record as far as ``compare`` reads it: contender=(q1, median, q3)."""
    machine = dict.fromkeys(("device", "threads", "dtype", "torch", "triton", "python", "compiler"), "x")
    rows = [
        {"contender": name, "seconds": dict(zip(("q1", "median", "q3"), values, strict=True))}
        for name, values in seconds.items()
    ]
    result = {"case": "clip/1x1", "mode": "wall clock", "faults": [], "rows": rows}
    return {"schema": 2, "complete": True, "machine": machine, "peers": {}, "results": [result]}


def compare(cli, tmp_path, a, b):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, record in zip(paths, (a, b), strict=True):
        path.write_text(json.dumps(record))
    return cli(["compare", *map(str, paths)])


def test_compare_judges_by_the_spreads(cli, capsys, tmp_path):
    before = record_of(quick=(10, 11, 12), slow=(10, 11, 12), calm=(100, 101, 102), noisy=(5, 10, 20), gone=(1, 1, 1))
    after = record_of(quick=(5, 6, 7), slow=(14, 15, 16), calm=(101, 102, 103), noisy=(6, 11, 19), new=(1, 1, 1))
    assert compare(cli, tmp_path, before, after) == 0
    said = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "clip/1x1" in line}
    for contender, word in {
        "quick": "faster",
        "slow": "slower",
        "calm": "same",
        "noisy": "unclear",
        "gone": "only in A",
        "new": "only in B",
    }.items():
        assert said[contender].rstrip().endswith(word)


@pytest.mark.parametrize("key", ["device", "threads", "dtype"])
def test_compare_refuses_what_differs_in_more_than_code(cli, capsys, tmp_path, key):
    a = record_of(ours=(1, 1, 1))
    b = copy.deepcopy(a)
    b["machine"][key] = "y"
    assert compare(cli, tmp_path, a, b) == 2
    assert f"not comparable: {key}" in capsys.readouterr().err


def test_compare_refuses_other_ways_of_timing(cli, capsys, tmp_path):
    a = record_of(ours=(1, 1, 1))
    b = copy.deepcopy(a)
    b["results"][0]["mode"] = "replays of CUDA graphs"
    assert compare(cli, tmp_path, a, b) == 2
    assert "not comparable: clip/1x1 was timed by 'wall clock' in A and by 'replays of" in capsys.readouterr().err


def test_compare_notes_what_weakens_it(cli, capsys, tmp_path):
    """Other versions, another machine of the same name, half a record, a case that went red."""
    a = record_of(ours=(1, 1, 1)) | {"peers": {"jax": {"jax": "1.0"}}}
    b = copy.deepcopy(a) | {"complete": False, "peers": {"jax": {"jax": "2.0"}}}
    b["machine"] |= {"torch": "y", "cores": 64}
    b["results"][0] |= {"rows": [], "faults": [{"contender": "loop", "fault": "output 0 is far away"}]}
    assert compare(cli, tmp_path, a, b) == 0
    err = capsys.readouterr().err
    for note in (
        "torch is x in A and y in B",
        "cores is None in A and 64 in B",
        "packages of the peers: jax 1.0 in A and jax 2.0 in B",
        "B was interrupted",
        "clip/1x1 was not timed in B: loop was wrong, output 0 is far away",
    ):
        assert f"note: {note}\n" in err


def test_the_clock_is_what_the_system_says_or_nothing(cli, monkeypatch):
    """A GPU's is asked of nvidia-smi, by the GPU's own name: PyTorch may number them otherwise."""
    import torch

    from benchmarks import machine

    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="a-b"))
    monkeypatch.setattr(machine, "line_of", lambda *command: asked.append(command) or "1980")
    assert machine.clock_mhz(torch.device("cuda")) == 1980.0
    assert asked[0][:2] == ("nvidia-smi", "--id=GPU-a-b")
    monkeypatch.setattr(machine, "line_of", lambda *command: None)
    assert machine.clock_mhz(torch.device("cuda")) is None
    monkeypatch.setattr(machine, "cpu_lines", lambda: ["model name\t: x", "cpu MHz\t\t: 2596.142"])
    assert machine.clock_mhz(torch.device("cpu")) == 2596.142
    monkeypatch.setattr(machine, "cpu_lines", list)
    assert machine.clock_mhz(torch.device("cpu")) is None
