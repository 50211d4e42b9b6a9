"""What data parallel training costs: iterations per second with the same batch per process, on this machine.

    python examples/weak_scaling.py --processes 1 2 --rounds 3

Starts examples/train_mnist.py by torchrun, one thread in each process, the numbers of processes in turn, and reads the
seconds of its metrics.jsonl. Perfect is the same rate for every number; on a CPU, processes share memory and caches.
One step of the critic, taken to pieces: python -m benchmarks run 'scaling/processes/*'.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

SCRIPT = Path(__file__).with_name("train_mnist.py")
LOG_EVERY, WARM = 2, 10  # iterations


def rate(processes: int, iterations: int, more: list[str]) -> float:
    """Iterations per second in the fastest quarter of the stretches of LOG_EVERY: others may use the machine, too."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), str(SCRIPT)]
        flags = {"out": out, "iterations": iterations, "log-every": LOG_EVERY}
        flags |= dict.fromkeys(("eval-every", "sample-every", "checkpoint-every"), 10 * iterations)
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([*launch, *arguments, *more], capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            sys.exit(done.stderr)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    # Not the last: it has the evaluation in it.
    seconds = [row["seconds"] for row in rows[:-1] if row["iteration"] >= WARM]
    stretches = [after - before for before, after in pairwise(seconds)]
    return LOG_EVERY / statistics.quantiles(stretches, n=4)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes to compare")
    parser.add_argument("--rounds", type=int, default=3, help="how often each, in turn")
    parser.add_argument("--iterations", type=int, default=60, help=f"of each run, at least {2 * WARM}")
    parser.add_argument("--batch-size", default="64", help="of each process")
    asked = parser.parse_args()
    if min(*asked.processes, asked.rounds) < 1 or asked.iterations < 2 * WARM:
        parser.error(f"--processes and --rounds have to be at least 1, --iterations at least {2 * WARM}")
    rates = {processes: [] for processes in asked.processes}
    for turn in range(asked.rounds):
        for processes, found in rates.items():
            found.append(rate(processes, asked.iterations, ["--batch-size", asked.batch_size]))
            print(f"round {turn + 1}, {processes} processes: {found[-1]:.2f} it/s", flush=True)
    first = statistics.median(rates[asked.processes[0]])
    print(f"\n{os.cpu_count()} CPUs, batch {asked.batch_size} per process, one thread each, medians of {asked.rounds}")
    print("| processes | joined batch | it/s (least to most) | against the first |\n|---|---|---|---|")
    for processes, found in rates.items():
        median, spread = statistics.median(found), f"{min(found):.2f} to {max(found):.2f}"
        joined = processes * int(asked.batch_size)
        print(f"| {processes} | {joined} | {median:.2f} ({spread}) | {median / first:.0%} |")


if __name__ == "__main__":
    main()
