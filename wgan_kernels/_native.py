"""The sole loader of the compiled part. Importing a shared object registers its kernels with torch."""

import importlib
import importlib.util


def _load(name):
    """(module, None), or (None, why not)."""
    if importlib.util.find_spec(f"wgan_kernels.{name}") is None:
        return None, (
            "wgan_kernels was installed without its compiled part (no C++ compiler, or WGAN_KERNELS_BUILD=none); "
            "install it again where a C++20 compiler is on the PATH"
        )
    try:
        return importlib.import_module(f"wgan_kernels.{name}"), None
    except ImportError as error:
        return None, f"the compiled part wgan_kernels.{name} does not load here: {error}"


cpu, _why_not_cpu = _load("_cpu")

# By device: why there are no compiled kernels, or None where there are.
why_not = {"cpu": _why_not_cpu, "cuda": "this version has no CUDA C++ kernels yet"}
