"""Kernels that are written for vectors, on the narrower ones that a processor has beside its widest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import needs_compiled

HERE = Path(__file__).parent
KERNELS = ("columns", "patches", "perceptron", "smooth_operators", "winograd", "winograd_layers")
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")

pytestmark = needs_compiled


@pytest.mark.parametrize("narrower", CAPABILITIES[:-1])
def test_their_tests_pass_on_narrower_ones(narrower):
    """Asked for as PyTorch's are; on the widest they are run anyway."""
    widest = torch.backends.cpu.get_cpu_capability()
    if widest not in CAPABILITIES or CAPABILITIES.index(narrower) >= CAPABILITIES.index(widest):
        pytest.skip(f"this processor has {widest}")
    environment = os.environ | {"ATEN_CPU_CAPABILITY": narrower.lower()}
    tests = [HERE / f"test_{kernel}.py" for kernel in KERNELS]
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "--no-header", *tests]
    done = subprocess.run(command, env=environment, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout.splitlines()[-1]
