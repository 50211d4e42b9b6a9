"""The CUDA code that was really built, read back without a GPU: its architectures, 16-byte accesses, no spills, no
warnings."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parent.parent
LIBRARIES = list((ROOT / "wgan_kernels").glob("_cuda*.so"))
CXX = shutil.which(os.environ.get("CXX", "c++"))
WITHOUT_GPU = {"80", "90", "100"}  # setup.py's choice

# Every kernel, by name and by the operation it is made of: how many 16-byte loads and stores its code has at least. A
# kernel that streams has them for the turns of its loop, several at a time, and for the ends.
KERNELS = {
    ("layer_norm_fwd_kernel", None): (10, 2),
    ("layer_norm_bwd_kernel", None): (12, 2),
    ("layer_norm_bwd_bwd_kernel", None): (16, 4),
    ("multi_tensor_kernel", "AdamOp"): (8, 6),
    ("multi_tensor_kernel", "Clip"): (5, 5),
    ("multi_tensor_kernel", "Count"): (5, 5),
    ("multi_tensor_kernel", "RmspropOp"): (6, 4),
    ("rows_kernel", "Interpolate"): (4, 2),
    ("rows_kernel", "InterpolateBwd"): (2, 4),
    ("rows_kernel", "NormPenaltyBwd"): (3, 3),
    ("sum_kernel", "Identity"): (5, 0),
    ("sum_kernel", "Square"): (5, 0),
    ("wasserstein_kernel", None): (20, 0),
    ("wasserstein_bwd_kernel", None): (0, 10),
    # One thread or a few lanes per sample, or per weight:
    ("layer_norm_weights_kernel", None): (0, 0),
    ("layer_norm_spans_kernel", None): (0, 0),
    ("norm_penalty_kernel", None): (0, 0),
    ("draw_kernel", None): (0, 0),
}


def cuobjdump(*arguments):
    (library,) = LIBRARIES
    return subprocess.run([TOOL, *arguments, library], check=True, capture_output=True, text=True).stdout


def find_tool():
    if path := shutil.which("cuobjdump"):
        return path
    try:
        import triton

        return triton.knobs.nvidia.cuobjdump.path
    except (ImportError, AttributeError, RuntimeError):
        return None


TOOL = find_tool()
needs_the_library = pytest.mark.skipif(
    not LIBRARIES or TOOL is None or shutil.which("c++filt") is None,
    reason="needs the CUDA kernels built in place, cuobjdump and c++filt",
)


def kernel_of(mangled):
    """(name, operation or None) of a kernel's symbol."""
    name = subprocess.run(["c++filt", mangled], check=True, capture_output=True, text=True).stdout
    pattern = r"wgan::(?:\(anonymous namespace\)::)?(\w+)(?:<wgan::(?:\(anonymous namespace\)::)?(\w+))?"
    return re.search(pattern, name).groups()


@pytest.fixture(scope="module")
def functions():
    """[(architecture, kernel, its SASS), …]."""
    found = []
    for part in re.split(r"^\s*code for sm_", cuobjdump("-sass"), flags=re.M)[1:]:
        architecture = re.match(r"\d+", part)[0]
        for function in re.split(r"^\s*Function : ", part, flags=re.M)[1:]:
            found.append((architecture, kernel_of(function.split()[0]), function))
    return found


@needs_the_library
def test_holds_the_architectures_asked_for():
    images = {kind: set(re.findall(r"sm_(\d+)", cuobjdump(f"--list-{kind}"))) for kind in ("elf", "ptx")}
    if not torch.cuda.is_available() and "TORCH_CUDA_ARCH_LIST" not in os.environ:
        assert images == {"elf": WITHOUT_GPU, "ptx": {"100"}}
    elif torch.cuda.is_available():
        capability = "{}{}".format(*torch.cuda.get_device_capability())
        assert capability in images["elf"] or any(int(ptx) <= int(capability) for ptx in images["ptx"])


@needs_the_library
def test_every_kernel_is_known(functions):
    by_architecture = {}
    for architecture, kernel, _ in functions:
        by_architecture.setdefault(architecture, set()).add(kernel)
    assert by_architecture
    for kernels in by_architecture.values():
        assert kernels == set(KERNELS)


@needs_the_library
def test_streams_sixteen_bytes_at_a_time(functions):
    for architecture, kernel, sass in functions:
        for access, least in zip(("LDG", "STG"), KERNELS[kernel], strict=True):
            found = len(re.findall(rf"\b{access}\.E\.(?:\w+\.)*128\b", sass))
            assert found >= least, (architecture, kernel, access, found)


@needs_the_library
def test_spills_nothing():
    usage = re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", cuobjdump("-res-usage"))
    assert usage
    assert not [kernel_of(name) for name, stack, local in usage if int(stack) or int(local)]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of torch")
@pytest.mark.parametrize("source", sorted((ROOT / "csrc/cuda").glob("*.cu")), ids=lambda path: path.name)
def test_compiles_without_a_warning(source, tmp_path):
    """The device's side; the host's is compiled in test_cuda_on_host.py."""
    flags = "-std=c++20 -O1 --expt-relaxed-constexpr -Werror all-warnings -arch=compute_80 -ptx -DUSE_CUDA"
    include = [option for path in cpp_extension.include_paths() for option in ("-isystem", path)]
    command = ["nvcc", *flags.split(), "-DTORCH_TARGET_VERSION=0x020a000000000000", *include]
    done = subprocess.run([*command, source, "-o", tmp_path / "out.ptx"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")
def test_compiles_where_torch_has_one_error_code_check(tmp_path):
    """As 2.11 has; newer headers are made to look like its own."""
    source = tmp_path / "old.cpp"
    source.write_text(
        """
        #include <torch/csrc/stable/macros.h>
        #undef STABLE_TORCH_ERROR_CODE_CHECK
        #include "common/error_code.h"
        void check(int code) { STABLE_TORCH_ERROR_CODE_CHECK(code); }
        """
    )
    include = [option for path in cpp_extension.include_paths() for option in ("-isystem", path)]
    flags = ["-std=c++20", "-fsyntax-only", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{ROOT / 'csrc'}"]
    done = subprocess.run([CXX, *flags, *include, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
