"""Builds the compiled parts, or says why not. WGAN_KERNELS_BUILD=none|cpu|cuda overrides: cuda, or FORCE_CUDA=1, is
both parts or an error. Metadata is in pyproject.toml."""

import os
import re
import shutil
import subprocess
import sys
from glob import glob

from setuptools import setup

# LibTorch's stable ABI of 2.10: one binary serves every torch from there on, and every Python from 3.10 on.
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # py_limited_api adds the Python side
CXX = ["-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wall", *STABLE_ABI]
# Without fused multiply-adds each operation is rounded by itself, as in eager torch; memory is the limit either way.
NVCC = ["-O3", "-std=c++20", "--fmad=false", "-Xcompiler=-fvisibility=hidden,-Wall", "-Xfatbin=-compress-all"]
BLACKWELL = (12, 8)  # the first nvcc that knows it


def choose_build():
    """'none', 'cpu', 'cuda' or, where nobody asked, 'auto': 'cpu', and 'cuda' too where the machine can compile it."""
    asked = os.environ.get("WGAN_KERNELS_BUILD") or ("cuda" if os.environ.get("FORCE_CUDA") == "1" else None)
    if asked not in (None, "none", "cpu", "cuda"):
        sys.exit(f"WGAN_KERNELS_BUILD={asked!r}: expected none, cpu or cuda")
    if asked:
        return asked
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
        print("wgan_kernels: no C++ compiler found (CXX, c++): installing without the compiled part", file=sys.stderr)
        return "none"
    return "auto"


def why_no_cuda():
    """None where CUDA kernels can be compiled for the torch that is here, with CUDA_HOME then set; else the reason."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=f"{home}/bin" if home else f"{os.environ['PATH']}:/usr/local/cuda/bin")
    if nvcc is None:
        return f"no nvcc in {home}/bin" if home else "no nvcc (CUDA_HOME, PATH, /usr/local/cuda)"
    # nvcc itself says where its toolkit is: the nvcc on the PATH may be a link or a script that lies elsewhere.
    said = subprocess.run([nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)", said, re.M)
    version = tuple(int(n) for n in re.findall(r"__CUDACC_VER_M(?:AJ|IN)OR__=(\d+)", said)[:2])
    if top is None or len(version) < 2:
        return f"{nvcc} --dryrun fails: {said.strip()[-300:]}"
    if version[0] != int(torch.version.cuda.split(".")[0]):
        return f"{nvcc} is of CUDA {version[0]}, torch of CUDA {torch.version.cuda}: their major versions differ"
    os.environ["CUDA_HOME"] = os.path.realpath(top[1].strip())  # before cpp_extension looks for it
    if torch.cuda.device_count() == 0:  # else torch's own default: the devices that are here
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0;10.0+PTX" if version >= BLACKWELL else "8.0;9.0+PTX")
    return None


def extensions(build):
    reason = why_no_cuda() if build != "cpu" else None
    if reason and build == "cuda":
        sys.exit(f"wgan_kernels: CUDA kernels were asked for and cannot be built: {reason}")
    if reason:
        print(f"wgan_kernels: installing without the CUDA kernels: {reason}", file=sys.stderr)
    from torch.utils import cpp_extension

    headers = sorted(glob("csrc/*/*.h")) + sorted(glob("csrc/*/*.cuh"))
    modules = [
        cpp_extension.CppExtension(
            "wgan_kernels._cpu",
            sorted(glob("csrc/cpu/*.cpp")),
            depends=headers,
            extra_compile_args=CXX,
            py_limited_api=True,
        )
    ]
    if build != "cpu" and not reason:
        cuda = cpp_extension.CUDAExtension(
            "wgan_kernels._cuda",
            sorted(glob("csrc/cuda/*.cu") + glob("csrc/cuda/*.cpp")),
            depends=headers,
            extra_compile_args={"cxx": [*CXX, "-DUSE_CUDA"], "nvcc": [*NVCC, "-DUSE_CUDA", *STABLE_ABI]},
            py_limited_api=True,
        )
        modules.append(cuda)
    return {"ext_modules": modules, "cmdclass": {"build_ext": cpp_extension.BuildExtension}}


build = choose_build()
# pip asks what the build needs before it builds: torch is not there yet, and nothing is compiled. Once something is,
# nothing is fetched any more.
compiling = build != "none" and not {"build_ext", "build", "bdist_wheel", "editable_wheel", "develop"}.isdisjoint(
    sys.argv
)
setup(
    setup_requires=["torch>=2.10", "ninja"] if build != "none" and not compiling else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if build != "none" else {},
    **(extensions(build) if compiling else {}),
)
