"""The CUDA kernels' own source, run without a GPU: see cuda_on_host/cuda_runtime.h.

What it cannot show: speed, what the GPU's memory model allows beyond the order of threads, nvcc's own mistakes.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent / "cuda_on_host"
CXX = shutil.which(os.environ.get("CXX", "c++"))
SOURCES = sorted([*(ROOT / "csrc/cuda").glob("*.cu"), ROOT / "csrc/cuda/module.cpp", HERE / "device.cpp"])

pytestmark = pytest.mark.skipif(
    CXX is None or not sys.platform.startswith("linux"), reason="needs Linux and a C++ compiler"
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The library, every misaligned access and undefined step of it a trap."""
    folder = tmp_path_factory.mktemp("on_host")
    flags = "-x c++ -std=c++20 -O0 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Werror -Wno-unknown-pragmas "
    flags += "-fsanitize=undefined -fno-sanitize=vptr -fsanitize-undefined-trap-on-error "
    flags += "-DUSE_CUDA -DTORCH_TARGET_VERSION=0x020a000000000000 -DPy_LIMITED_API=0x030a0000"
    include = [HERE, *cpp_extension.include_paths(), sysconfig.get_paths()["include"]]
    flags = [*flags.split(), *(f"-isystem{path}" for path in include), "-include", HERE / "prelude.h"]

    def run(*command):
        done = subprocess.run([CXX, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]

    objects = [folder / f"{source.name}.o" for source in SOURCES]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: run(*flags, "-c", pair[0], "-o", pair[1]), zip(SOURCES, objects, strict=True)))
    library = folder / "_cuda.abi3.so"
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()] + ["-ltorch_cpu", "-lc10"]
    run("-shared", "-Wl,-Bsymbolic", *objects, *libraries, "-o", library)
    return library


def run_tests(kernels, *arguments):
    env = os.environ | {
        "KERNELS_ON_HOST": str(kernels),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT), *sys.path[:1]]),
    }
    command = [sys.executable, "-m", "pytest", "-p", "on_host", "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *arguments], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_tests_of_every_op(kernels):
    """Those of the CPU kernels, whose place the CUDA kernels take."""
    tests = [path for source in SOURCES if (path := ROOT / f"python_tests/test_{source.stem}.py").is_file()]
    assert len(tests) >= 4
    run_tests(kernels, "-k", "cpp-cpu", *tests, ROOT / "python_tests/test_optim.py")


def test_what_only_these_kernels_have(kernels):
    run_tests(kernels, HERE / "kernel_checks.py")


def test_the_host_is_a_strict_device(kernels, tmp_path):
    """The test of these tests: a missing barrier gives a wrong sum, a misaligned access a trap."""
    if torch.cuda.is_available():
        pytest.skip("shown where there is no GPU")
    source = tmp_path / "mistakes.cpp"
    source.write_text(
        """
        #include <cuda_runtime.h>
        void reversed(int* out, bool barrier) {
          __shared__ int all[64];
          all[threadIdx.x] = threadIdx.x;
          if (barrier) __syncthreads();
          out[threadIdx.x] = all[63 - threadIdx.x];
          __syncthreads();
          all[threadIdx.x] = -1;
        }
        int main() {
          int out[64], *p = out, wrong[2] = {};
          for (bool barrier : {false, true}) {
            void* arguments[] = {&p, &barrier};
            cudaLaunchKernel(reversed, dim3(2), dim3(64), arguments, 0, nullptr);
            for (int i = 0; i < 64; ++i) wrong[barrier] += out[i] != 63 - i;
          }
          return wrong[0] > 0 && wrong[1] == 0 ? 0 : 1;
        }
        """
    )
    program = tmp_path / "mistakes"
    subprocess.run([CXX, "-std=c++20", "-O1", f"-I{HERE}", source, "-o", program], check=True)
    assert subprocess.run([program]).returncode == 0
