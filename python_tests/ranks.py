"""Processes that train together, started by a test and not by torchrun."""

import os
import socket
from datetime import timedelta

import torch
from torch import multiprocessing

from wgan_kernels.training import distributed
from wgan_kernels.training.errors import UsageError


def _rank(function, arguments, rank, size, port, timeout, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "FOLDER": str(folder)}
    torch.set_num_threads(1)
    try:
        with distributed.session(timeout):
            torch.save(function(*arguments), folder / f"{rank}.pt")
    except (distributed.LostRank, UsageError, SystemExit) as error:
        (folder / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_ranks(size, folder, function, *arguments, timeout=60.0):
    """What ``function`` returns on each of ``size`` ranks, or the name of what it raises there."""
    port = free_port()
    spawn = multiprocessing.get_context("spawn")
    limit = timedelta(seconds=timeout)
    ranks = [
        spawn.Process(target=_rank, args=(function, arguments, rank, size, port, limit, folder)) for rank in range(size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        if process.is_alive():
            process.kill()
    results = []
    for rank in range(size):
        saved, text = folder / f"{rank}.pt", folder / f"{rank}.txt"
        results.append(torch.load(saved, weights_only=False) if saved.exists() else text.exists() and text.read_text())
    return results
