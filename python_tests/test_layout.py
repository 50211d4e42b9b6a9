"""The house rules, as checks: families are whole, rooms import only whom they may, files stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "wgan_kernels"
STEMS = {room: sorted(path.stem for path in (PACKAGE / room).glob("[a-z]*.py")) for room in ("ops", "optim")}

# One op, one stem: where each op has to have a file of its name.
ROOMS = [
    "csrc/math/{}.h",
    "csrc/cpu/{}.cpp",
    "csrc/cuda/{}.cu",
    "wgan_kernels/_triton/{}.py",
    "benchmarks/cases/{}.py",
    "python_tests/test_{}.py",
]

# What CPUs are slow at, and a GPU's own libraries have kernels for.
OF_CPUS = {
    "batch_norm",
    "columns",
    "group_norm",
    "pairs",
    "pairs_few",
    "pairs_few_up",
    "pairs_weights",
    "patches",
    "perceptron",
    "perceptron_weights",
    "smooth",
    "winograd",
    "winograd_same",
    "winograd_weights",
}

# Room → what of the package it may import. A room that is not named may not be imported.
MAY_IMPORT = {
    "reference": set(),
    "_native": set(),
    "_checks": set(),
    "_layout": set(),
    "_library": set(),
    "_dispatch": {"_native"},
    "_triton": {"_layout"},
    "ops": {"_checks", "_dispatch", "_layout", "_library", "_native", "reference"},
    "optim": {"_checks", "_dispatch", "_library", "_native", "ops", "reference"},
    "rules": {"_dispatch", "_layout", "_library", "ops"},
    "second_order": {"rules"},
    "one_pass": {"_layout", "_precision", "_settings", "ops", "rules", "second_order"},
    "penalty": {"_checks", "_heap", "one_pass", "ops", "second_order"},
    "_heap": set(),
    "_precision": set(),
    "_settings": {"_dispatch"},
    "_capture": {"_settings", "optim"},
    "_tuning": {"_layout", "rules"},
    "_chain": {"_dispatch", "_library", "one_pass"},
    "critic_step": {
        "_capture",
        "_checks",
        "_heap",
        "_layout",
        "_precision",
        "_settings",
        "_tuning",
        "one_pass",
        "ops",
        "penalty",
    },
    "generator_step": {"_capture", "_chain", "_checks", "_heap", "_precision", "_tuning", "ops"},
    "__init__": {"reference", "_dispatch", "ops", "optim", "penalty", "second_order", "critic_step", "generator_step"},
}


def room_of(path):
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(path):
    """(top-level modules from outside, rooms of the package) that a file imports, anywhere in it."""
    outside, rooms = set(), set()
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top == "wgan_kernels":
                rooms.add(rest[0] if rest else "__init__")
            else:
                outside.add(top)
    return outside, rooms


SOURCES = sorted(PACKAGE.rglob("*.py"))
CORE = [path for path in SOURCES if room_of(path) != "training"]


def test_the_families_are_known():
    assert STEMS == {
        "ops": ["clip", "interpolate", "layer_norm", "norm_penalty", "wasserstein"],
        "optim": ["adam", "rmsprop"],
    }


@pytest.mark.parametrize("stem", [*STEMS["ops"], *STEMS["optim"]])
@pytest.mark.parametrize("room", ROOMS)
def test_every_family_is_whole(room, stem):
    assert (ROOT / room.format(stem)).is_file()


def test_every_family_has_a_reference():
    for stem in STEMS["ops"]:
        assert (PACKAGE / f"reference/{stem}.py").is_file()
    for stem in STEMS["optim"]:
        assert (PACKAGE / f"reference/optim/{stem}.py").is_file()


def test_no_room_has_a_kernel_without_an_op():
    for room in ("csrc/math", "csrc/cpu", "csrc/cuda"):
        shared = {"elements", "host_device", "isa", "loops", "pairs", "products", "rows", "sum", "optimizer", "module"}
        stems = {path.stem for path in (ROOT / room).iterdir()} - shared
        assert stems - (set() if "cuda" in room else OF_CPUS) == {*STEMS["ops"], *STEMS["optim"]}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_whom_they_may(path):
    room = room_of(path)
    outside, rooms = imports(path)
    assert rooms - {room, "__init__"} <= MAY_IMPORT[room], f"{room} imports {rooms}"
    import sys

    allowed = {"torch"} | ({"triton"} if room == "_triton" else set())
    assert outside - set(sys.stdlib_module_names) <= allowed


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.glob("training/**/*.py"), *ROOT.glob("examples/*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_training_uses_the_public_api_alone(path):
    _, rooms = imports(path)
    assert rooms <= {"training", "__init__", "reference"}


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_training(path):
    assert "training" not in imports(path)[1]


def test_formulas_know_no_tensors():
    for path in (ROOT / "csrc/math").glob("*.h"):
        assert "torch" not in path.read_text(), path


def test_files_fit_in_the_head():
    files = [
        *SOURCES,
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "csrc").rglob("*.*"),
    ]
    long = {path.name: lines for path in files if (lines := path.read_text().count("\n")) > 300}
    assert not long
    assert not [path for path in files if path.stem in ("utils", "util", "helpers", "misc")]
    assert (ROOT / "setup.py").read_text().count("\n") < 100


def test_the_checker_sees_imports():
    """The test of these tests: relative, absolute and lazy imports are all found."""
    _, rooms = imports(PACKAGE / "penalty.py")
    assert {"_checks", "ops", "second_order"} <= rooms
    outside, _ = imports(PACKAGE / "_dispatch.py")
    assert "torch" in outside


def test_the_reference_has_every_public_name():
    """With the same signature, but for what only chooses between implementations."""
    import inspect

    import wgan_kernels as wk

    unlike = {"backends", "optim", "reference", "use_backend"}
    pairs = {name: (getattr(wk, name), getattr(wk.reference, name)) for name in wk.__all__ if name not in unlike}
    pairs |= {name: (getattr(wk.optim, name), getattr(wk.reference.optim, name)) for name in wk.optim.__all__}
    for name, (ours, spec) in pairs.items():
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(spec).parameters), name


def test_what_needs_the_source_tree_is_not_run_on_the_wheel():
    """`make wheel-check` copies tests and benchmarks, no examples."""
    import re
    from fnmatch import fnmatch

    names = re.search(r"^NOT_OF_THE_WHEEL := (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    of_examples = [path for path in (ROOT / "python_tests").glob("test_*.py") if "example" in path.read_text()]
    assert len(of_examples) > 5
    missed = [path.stem for path in of_examples if not any(fnmatch(path.stem, f"test_{name}") for name in names)]
    assert not missed
