"""What `make gpu-check` runs, on a machine with a GPU; it needs torch and pytest, and installs nothing.

The build; then what only a GPU shows: the kernels' tests, these under compute-sanitizer, times; last the whole suite,
for as long as the ten minutes of the target last. A step that fails or runs late does not stop the next. Tests are
shared among the cores where pytest-xdist is installed: most of the time goes to compiling Triton's kernels, one by one.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "python_tests"
SECONDS = 570  # of the ten minutes
GRACE = 10  # for a step that is interrupted
OPS = [path.stem for path in sorted((ROOT / "wgan_kernels/_triton").glob("[!_]*.py"))]
PYTEST = [sys.executable, "-m", "pytest", "--continue-on-collection-errors", "--durations=5"]
SHARED = ["-n", str(min(12, os.cpu_count()))] if importlib.util.find_spec("xdist") else []
FEW_THREADS = {"OMP_NUM_THREADS": "2"} if SHARED else {}
STEPS = ("gradient_penalty", "critic_step", "iteration")
# Tests of every kernel: ends off 16 bytes, rows of any length, all dtypes at once, several tables to a launch.
SANITIZED = "odd or wide or offset or mixed or stay or large or many"
# Slow, and nothing of theirs runs on a GPU.
LAST = (
    "test_benchmarks_cases",
    "test_benchmarks_cli",
    "test_benchmarks_peers",
    "test_benchmarks_report",
    "test_build",
    "test_train_mnist",
    "test_training_refusals",
    "test_training_run",
    "test_wheel",
)

deadline = time.monotonic() + SECONDS
outcomes = []


def step(name, command, seconds, **env):
    """Runs it for so long, then interrupts it and its children as Ctrl-C does, after which benchmarks keep what was
    timed; and keeps how it went. None of its processes is left: they would hold the GPU's memory.
    """
    print(f"\n== {name}", flush=True)
    seconds, start = max(1, min(seconds, deadline - time.monotonic())), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, preexec_fn=os.setpgrp)
    try:
        code = process.wait(seconds)
        outcome = "passed" if code == 0 else f"FAILED (exit code {code})"
    except subprocess.TimeoutExpired:
        outcome = f"cut short after {seconds:.0f} s"
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    outcomes.append(f"{outcome:24} {time.monotonic() - start:5.0f} s  {name}")


def sanitize():
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    tool = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:{home}/bin:{home}/compute-sanitizer")
    if tool is None:
        outcomes.append("not found                        compute-sanitizer: nothing was sanitized")
        return
    selection = ["-k", f"cuda-cuda and ({SANITIZED})", *(TESTS / f"test_{name}.py" for name in (*OPS, "optim"))]
    ours = ["--kernel-name", "kns=4wgan"]  # mangled: namespace wgan
    # Of calls that fail our own code raises; Python's packages ask the driver for functions that it may lack. Beyond
    # its end a tensor has 512 bytes of nobody's.
    accesses = [*ours, "--report-api-errors", "no", "--padding", "512"]
    # initcheck follows every write to see what is unwritten, so it looks at all kernels; and nothing is to be poisoned.
    for checker, options in (("memcheck", accesses), ("racecheck", ours), ("initcheck", [])):
        command = [tool, "--tool", checker, "--error-exitcode", "9", "--print-limit", "20", *options, *PYTEST]
        env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "UNPOISONED": str(int(checker == "initcheck"))}
        step(f"{checker} of the CUDA kernels", [*command, *selection], 60, **env)


def benchmark():
    if all(importlib.util.find_spec(name) for name in ("tyro", "rich")):
        run = [sys.executable, "-m", "benchmarks", "run", "--device", "cuda", "--quick"]
        kernels = [*OPS, "--json", "build/gpu-check.json", "--backend", "cuda", "triton"]
        step("benchmarks of the kernels", [*run, *kernels], 70)
        step("benchmarks of whole steps", [*run, *STEPS, "--json", "build/gpu-check-steps.json"], 50)
    else:
        plainly = "plainly: tyro or rich is missing"
        step(f"benchmarks of the kernels, {plainly}", [sys.executable, __file__, *OPS], 70)
        step(f"benchmarks of whole steps, {plainly}", [sys.executable, __file__, *STEPS], 50)


def benchmark_plainly(ops, device):
    """The benchmarks' own harness without their command line, as quick."""
    from benchmarks.cases import CASES
    from benchmarks.harness import Settings, run_case

    settings = Settings(device, torch.float32, torch.get_num_threads(), rounds=9, quick=True, seconds=1.0)
    for case in CASES:
        if case.op not in ops or case.large or case.kind not in (None, device.type):
            continue
        backends = ("cuda", "triton") if case.op in OPS else None
        result = run_case(case, replace(settings, backends=backends))
        print(f"{case.name}: {result['status']} {result['faults'] or ''}", flush=True)
        for row in result["rows"]:
            speed = f"{row['gb_per_s']:7.0f} GB/s" if row["gb_per_s"] else ""
            print(f"  {row['contender']:24} {row['seconds']['median'] * 1e6:9.1f} µs {speed}", flush=True)


def main():
    if not torch.cuda.is_available():
        sys.exit("gpu-check: PyTorch finds no GPU here")
    print("Python", sys.version.split()[0], "torch", torch.__version__, torch.cuda.get_device_name())
    step("the build", [sys.executable, "setup.py", "build_ext", "--inplace"], 240, FORCE_CUDA="1")
    subprocess.run([sys.executable, "-c", "import wgan_kernels as wk; print(wk.backends())"], cwd=ROOT)
    for backend, tests in (("CUDA", "cuda-cuda or philox"), ("Triton", "triton-cuda")):
        step(f"the {backend} kernels", [*PYTEST, *SHARED, "-k", tests, TESTS], 90, **FEW_THREADS)
    sanitize()
    benchmark()
    files = sorted(TESTS.glob("test_*.py"), key=lambda path: (path.stem in LAST, path.stem))
    step(
        "the whole suite",
        [*PYTEST, *SHARED, "--dist=loadfile", *files] if SHARED else [*PYTEST, *files],
        SECONDS,
        **FEW_THREADS,
    )
    print("\n== gpu-check", *outcomes, sep="\n")
    sys.exit(any(not outcome.startswith(("passed", "not found")) for outcome in outcomes))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    benchmark_plainly(sys.argv[1:], torch.device("cuda")) if sys.argv[1:] else main()
