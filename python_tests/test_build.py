"""Installing from source: with a compiler, without one, and with the off switch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_python

ROOT = Path(__file__).parent.parent
SOURCES = ["csrc", "wgan_kernels", "setup.py", "pyproject.toml", "README.md", "LICENSE"]


@pytest.fixture
def source(tmp_path):
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tmp_path / "source" / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(path, tmp_path / "source" / name)
    return tmp_path / "source"


def install(source, target, **env):
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--target",
        target,
    ]
    return subprocess.run([*command, source], env=os.environ | env, capture_output=True, text=True)


def chosen(target):
    code = "import wgan_kernels as wk; print(wk.__file__); r = wk.backends()['clip', 'cpu']; print(r.chosen, r.why_not)"
    result = run_python(code, target)
    assert result.returncode == 0, result.stderr
    assert str(target) in result.stdout
    return result.stdout


@pytest.mark.parametrize(
    "env", [{"WGAN_KERNELS_BUILD": "none"}, {"CXX": "/nowhere/c++"}], ids=["off switch", "no compiler"]
)
def test_installs_without_the_compiled_part(source, tmp_path, env):
    result = install(source, tmp_path / "site", **env)
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "site").rglob("*.so"))
    assert "reference" in chosen(tmp_path / "site")


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="needs a C++ compiler")
def test_installs_with_the_compiled_part(source, tmp_path):
    result = install(source, tmp_path / "site")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (tmp_path / "site").rglob("*.so")] == ["_cpu.abi3.so"]
    assert "\ncpp " in chosen(tmp_path / "site")


def test_a_wrong_switch_is_refused(source, tmp_path):
    result = install(source, tmp_path / "site", WGAN_KERNELS_BUILD="gpu")
    assert result.returncode != 0
    assert "WGAN_KERNELS_BUILD='gpu': expected none or cpu" in result.stderr + result.stdout


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
def test_the_compiled_part_keeps_to_the_stable_abi():
    """No symbol of C++ namespaces whose layout changes from one torch to the next."""
    (library,) = (ROOT / "wgan_kernels").glob("_cpu*.so")
    symbols = subprocess.run(
        ["nm", "-DC", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    assert "aoti_torch_get_numel" in symbols
    unstable = [line for line in symbols.splitlines() if any(name in line for name in (" at::", " c10::", " torch::"))]
    assert not unstable
