"""pytest plugin: the CUDA kernels, built for the host (KERNELS_ON_HOST), take the place of the CPU's."""

import importlib.util
import os
import sys

import torch  # noqa: F401  (its libraries, before the kernels that need them)

path = os.environ["KERNELS_ON_HOST"]
spec = importlib.util.spec_from_file_location("wgan_kernels._cuda", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules["wgan_kernels._cpu"] = module
