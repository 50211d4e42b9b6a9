"""Installing from source: without a compiler, switched off, with CUDA asked for. With a compiler: test_wheel.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import run_python

ROOT = Path(__file__).parent.parent
SOURCES = ["csrc", "wgan_kernels", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]


def copy_source(target):
    """What a build reads, so that it leaves the tree alone."""
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, target / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(path, target / name)


@pytest.fixture
def source(tmp_path):
    copy_source(tmp_path / "source")
    return tmp_path / "source"


def install(source, target, **env):
    """``source``: a tree, or a wheel."""
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


def test_a_wrong_switch_is_refused(source, tmp_path):
    result = install(source, tmp_path / "site", WGAN_KERNELS_BUILD="gpu")
    assert result.returncode != 0
    assert "WGAN_KERNELS_BUILD='gpu': expected none, cpu or cuda" in result.stderr + result.stdout


@pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of torch")
@pytest.mark.parametrize("switch", ["WGAN_KERNELS_BUILD=cuda", "FORCE_CUDA=1"])
@pytest.mark.parametrize(
    "nvcc, reason",
    [
        (None, "no nvcc in"),
        ("#$ TOP=/toolkit\n#$ gcc -D__CUDACC_VER_MAJOR__=9 -D__CUDACC_VER_MINOR__=2", "their major versions differ"),
        ("nvcc fatal: broken", "--dryrun fails: nvcc fatal: broken"),
    ],
    ids=["none", "of another version", "broken"],
)
def test_cuda_kernels_asked_for_are_built_or_the_reason_is_given(source, tmp_path, switch, nvcc, reason):
    if nvcc:
        path = tmp_path / "toolkit/bin/nvcc"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{nvcc}\nEND\n")
        path.chmod(0o755)
    name, value = switch.split("=")
    result = install(source, tmp_path / "site", **{"CUDA_HOME": str(tmp_path / "toolkit"), name: value})
    assert result.returncode != 0
    output = result.stderr + result.stdout
    assert "CUDA kernels were asked for and cannot be built" in output and reason in output


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize("name", ["_cpu", "_cuda"])
def test_the_compiled_part_keeps_to_the_stable_abi(name):
    """No symbol of C++ namespaces whose layout changes from one torch to the next."""
    libraries = list((ROOT / "wgan_kernels").glob(f"{name}*.so"))
    if not libraries and name == "_cuda":
        pytest.skip("the CUDA kernels are not built")
    (library,) = libraries
    symbols = subprocess.run(
        ["nm", "-DC", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    assert "aoti_torch_get_numel" in symbols
    unstable = [line for line in symbols.splitlines() if any(name in line for name in (" at::", " c10::", " torch::"))]
    assert not unstable
