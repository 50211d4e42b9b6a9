"""Builds the compiled part, or says why not. WGAN_KERNELS_BUILD=none|cpu overrides; metadata is in pyproject.toml."""

import os
import shutil
import sys
from glob import glob

from setuptools import setup

# LibTorch's stable ABI of 2.10: one binary serves every torch from there on, and every Python from 3.10 on.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # py_limited_api adds the Python side


def choose_build():
    """'cpu' or 'none': what was asked for, else what the machine can compile."""
    asked = os.environ.get("WGAN_KERNELS_BUILD")
    if asked not in (None, "none", "cpu"):
        sys.exit(f"WGAN_KERNELS_BUILD={asked!r}: expected none or cpu")
    if asked:
        return asked
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
        print("wgan_kernels: no C++ compiler found (CXX, c++): installing without the compiled part", file=sys.stderr)
        return "none"
    return "cpu"


def extensions():
    from torch.utils import cpp_extension

    cpu = cpp_extension.CppExtension(
        "wgan_kernels._cpu",
        sorted(glob("csrc/cpu/*.cpp")),
        depends=sorted(glob("csrc/*/*.h")),
        extra_compile_args=["-O3", "-std=c++20", "-fvisibility=hidden", "-Wall", *STABLE_ABI],
        py_limited_api=True,
    )
    return {"ext_modules": [cpu], "cmdclass": {"build_ext": cpp_extension.BuildExtension}}


build = choose_build()
# pip asks what the build needs before it builds: torch is not there yet, and nothing is compiled.
compiling = build != "none" and not {"build_ext", "build", "bdist_wheel", "editable_wheel", "develop"}.isdisjoint(
    sys.argv
)
setup(
    setup_requires=["torch>=2.10", "ninja"] if build != "none" else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if build != "none" else {},
    **(extensions() if compiling else {}),
)
