"""What `make gpu-check` runs after its build, on a machine with a GPU; it needs torch and pytest, and installs nothing.

First what only a GPU shows: the kernels' tests, then these under compute-sanitizer, then times; last the whole suite,
for as long as the ten minutes of the target last. A step that fails or runs late does not stop the next.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "python_tests"
SECONDS = 480  # of the ten minutes; the rest is the build's
OPS = [path.stem for path in sorted((ROOT / "wgan_kernels/_triton").glob("[!_]*.py"))]
PYTEST = [sys.executable, "-m", "pytest", "--continue-on-collection-errors", "--durations=5"]
# Slow, and nothing of theirs runs on a GPU.
LAST = (
    "test_benchmarks_cases",
    "test_benchmarks_cli",
    "test_benchmarks_peers",
    "test_benchmarks_report",
    "test_build",
    "test_train_mnist",
    "test_training_run",
    "test_wheel",
)

deadline = time.monotonic() + SECONDS
outcomes = []


def step(name, command, seconds, **env):
    """Runs it for so long, then interrupts it as Ctrl-C does, after which benchmarks keep what was timed; and keeps how
    it went.
    """
    print(f"\n== {name}", flush=True)
    seconds, start = max(1, min(seconds, deadline - time.monotonic())), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env)
    try:
        code = process.wait(seconds)
        outcome = "passed" if code == 0 else f"FAILED (exit code {code})"
    except subprocess.TimeoutExpired:
        outcome = f"cut short after {seconds:.0f} s"
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    outcomes.append(f"{outcome:24} {time.monotonic() - start:5.0f} s  {name}")


def sanitize():
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    tool = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:{home}/bin:{home}/compute-sanitizer")
    if tool is None:
        outcomes.append("not found                        compute-sanitizer: nothing was sanitized")
        return
    tests = [TESTS / f"test_{op}.py" for op in OPS]
    selection = ["-k", "cuda-cuda and (odd or wide or offset or mixed or stay)"]
    ours = ["--kernel-name", "kns=4wgan"]  # mangled: namespace wgan
    # initcheck follows every write to see what is unwritten, so it looks at all kernels.
    for checker, only in (("memcheck", ours), ("racecheck", ours), ("initcheck", [])):
        command = [tool, "--tool", checker, "--error-exitcode", "9", "--print-limit", "20", *only, *PYTEST, *selection]
        step(f"{checker} of the CUDA kernels", [*command, *tests], 60, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def benchmark():
    run = [sys.executable, "-m", "benchmarks", "run"]
    quick = ["--device", "cuda", "--quick", "--json"]
    if all(importlib.util.find_spec(name) for name in ("tyro", "rich")):
        kernels = [*OPS, *quick, "build/gpu-check.json", "--backend", "cuda", "triton"]
        step("benchmarks of the kernels", [*run, *kernels], 70)
        steps = ["gradient_penalty", "critic_step", "iteration", *quick, "build/gpu-check-steps.json"]
        step("benchmarks of whole steps", [*run, *steps], 50)
    else:
        step("benchmarks, plainly: tyro or rich is missing", [sys.executable, __file__, "plainly"], 100)


def benchmark_plainly():
    """The benchmarks' own harness without their command line."""
    from benchmarks.cases import CASES
    from benchmarks.harness import Settings, run_case

    settings = Settings(torch.device("cuda"), torch.float32, torch.get_num_threads(), 9, True, None, ("cuda", "triton"))
    for case in CASES:
        if case.op not in OPS:
            continue
        result = run_case(case, settings)
        print(f"{case.name}: {result['status']} {result['faults'] or ''}", flush=True)
        for row in result["rows"]:
            speed = f"{row['gb_per_s']:7.0f} GB/s" if row["gb_per_s"] else ""
            print(f"  {row['contender']:24} {row['seconds']['median'] * 1e6:9.1f} µs {speed}", flush=True)


def main():
    if not torch.cuda.is_available():
        sys.exit("gpu-check: PyTorch finds no GPU here")
    print("Python", sys.version.split()[0], "torch", torch.__version__, torch.cuda.get_device_name())
    subprocess.run([sys.executable, "-c", "import wgan_kernels as wk; print(wk.backends())"], cwd=ROOT)
    step("the kernels", [*PYTEST, "-k", "cuda-cuda or triton-cuda or philox or graph", TESTS], 150)
    sanitize()
    benchmark()
    files = sorted(TESTS.glob("test_*.py"), key=lambda path: (path.stem in LAST, path.stem))
    step("the whole suite", [*PYTEST, *files], SECONDS)
    print("\n== gpu-check", *outcomes, sep="\n")
    sys.exit(any(not outcome.startswith(("passed", "not found")) for outcome in outcomes))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    benchmark_plainly() if sys.argv[1:] == ["plainly"] else main()
