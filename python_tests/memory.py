"""Trains small batches for many steps, all of a run's duties among them, and watches the memory.

    python python_tests/memory.py FOLDER [STEPS]        (make endurance: 5,000)

After a fifth of the steps, and 100 at least, the process may not grow: not by a living tensor, nor in resident memory
by more than GROWTH, for the allocator's own unrest (2.5 MB were seen in 200 steps, 0.0 in 5,000).
"""

import gc
import os
import sys
from pathlib import Path

import torch

from wgan_kernels.training import cli, run
from wgan_kernels.training.trainer import Trainer

ARGUMENTS = "--digits 3 --batch-size 2 --n-critic 1 --latent 8 --device cpu"
DUTIES = "--checkpoint-every 20 --log-every 2 --sample-every 20 --eval-every 50"
GROWTH = 8.0  # MB
run.EVALUATED = 100


def resident() -> float:
    """MB"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def living_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def main(folder: str, steps: str = "5000") -> None:
    steps, seen = int(steps), []
    part = steps // 10
    warm = max(2, -(-100 // part))  # parts
    iterate = Trainer.iterate

    def watched(trainer, *arguments):
        if trainer.iteration % part == 0:
            seen.append((resident(), living_tensors()))
        return iterate(trainer, *arguments)

    Trainer.iterate = watched
    torch.set_num_threads(1)
    status = cli.main(f"{ARGUMENTS} {DUTIES} --iterations {steps} --out {folder}/run".split())
    assert status == 0, status
    print("MB, living tensors:", *(f"{megabytes:.1f} {tensors}" for megabytes, tensors in seen), sep="\n")
    (before, tensors), (after, tensors_after) = seen[warm], seen[-1]
    assert tensors_after == tensors, f"{tensors_after - tensors} tensors more"
    assert after - before < GROWTH, f"{after - before:.1f} MB more"
    print(f"{after - before:+.1f} MB from step {warm * part} to {9 * part}: flat")


if __name__ == "__main__":
    main(*sys.argv[1:])
