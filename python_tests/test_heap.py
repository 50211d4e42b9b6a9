"""What is freed stays in the process, so that the next step touches no new pages; and the environment has the say."""

import os
import subprocess
import sys

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked for it")

FAULTS = """
import resource, sys, torch
from wgan_kernels._heap import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def touch():
    first, second = torch.zeros(20 << 20, dtype=torch.uint8), torch.zeros(60 << 20, dtype=torch.uint8)
for _ in range(10):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


def faults(mode, **environment):
    """Page faults of touching 80 MiB, once more."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], env=clean | environment, capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


@linux
def test_no_new_pages():
    assert faults("keep") < 100
    assert faults("leave") > 5_000  # 80 MiB are 20,480 pages of 4 KiB


@linux
def test_the_environment_has_the_say():
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > 5_000
