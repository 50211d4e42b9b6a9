"""What the numbers were read on: everything that someone needs in order to expect the same ones."""

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import wgan_kernels as wk

try:
    import resource
except ImportError:  # Windows
    resource = None

ROOT = Path(__file__).parent.parent


def line_of(*command):
    """The first line that ``command`` prints, or None where it cannot run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0]


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_lines():
    """What Linux says of its processors."""
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def cpu_name():
    names = (line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def cache_bytes(device):
    """The last-level cache: L2 on a GPU, on a CPU the largest that the kernel reports, 32 MiB where it reports none."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text().strip().rstrip("K")) * 1024 for size in sizes), default=2**25)


def commit():
    head = line_of("git", "rev-parse", "--short=12", "HEAD")
    changed = line_of("git", "status", "--porcelain", "--untracked-files=no")
    return head and head + ("+changes" if changed else "")


def clock_mhz(device):
    """What the device runs at now, idle or not, or None where the system does not tell."""
    if device.type == "cuda":
        query = "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"
        found = line_of("nvidia-smi", f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}", *query)
    else:
        found = next((line.partition(":")[2] for line in cpu_lines() if line.startswith("cpu MHz")), None)
    try:
        return float(found)
    except (TypeError, ValueError):
        return None


def load_average():
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def preemptions():
    """How often the system has taken a core away from this process. With several threads that is what ruins a timing:
    every parallel region ends when its last thread gets a core back.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def backend(op, settings):
    """Which implementation of ``op`` runs here unasked; None for what is composed of several ops."""
    row = wk.backends().get((op, settings.device.type))
    return row and row.chosen


def describe(settings):
    device, cuda = settings.device, settings.device.type == "cuda"
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "kind": device.type,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if cuda else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "clock_mhz": clock_mhz(device),
        "cores": cores(),
        "threads": settings.threads,
        "cache_bytes": cache_bytes(device),
        "dtype": str(settings.dtype).removeprefix("torch."),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": installed("triton"),
        "cuda": torch.version.cuda if cuda else None,
        "compiler": compiler and line_of(compiler, "--version"),
        "wgan_kernels": installed("wgan-kernels"),
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_average": load_average(),
    }
