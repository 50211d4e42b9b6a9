"""The sole loader of the compiled parts. Importing a shared object registers its kernels with torch."""

import importlib
import importlib.util

import torch


def _load(name, missing):
    """(module, None), or (None, why not)."""
    if importlib.util.find_spec(f"wgan_kernels.{name}") is None:
        return None, missing
    try:
        return importlib.import_module(f"wgan_kernels.{name}"), None
    except ImportError as error:
        return None, f"the compiled part wgan_kernels.{name} does not load here: {error}"


def _load_cuda():
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is built without CUDA"
    return _load(
        "_cuda",
        "wgan_kernels was installed without its CUDA kernels (no nvcc of torch's CUDA version, or WGAN_KERNELS_BUILD); "
        "install it again with FORCE_CUDA=1 to see what is missing",
    )


cpu, _why_not_cpu = _load(
    "_cpu",
    "wgan_kernels was installed without its compiled part (no C++ compiler, or WGAN_KERNELS_BUILD=none); "
    "install it again where a C++20 compiler is on the PATH",
)
cuda, _why_not_cuda = _load_cuda()

# By device: why there are no compiled kernels, or None where there are.
why_not = {"cpu": _why_not_cpu, "cuda": _why_not_cuda}
