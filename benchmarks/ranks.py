"""A case in several processes: ``rank.py`` N times, told the same, timed together."""

import os
import tempfile

import torch

from .peers.process import PeerError, Process


class Ranks:
    """The processes of ``case``. They make its inputs themselves, from the same seed, and take their shares.

    Raises:
        PeerError: one cannot start, ends or fails.
    """

    def __init__(self, case, settings):
        self.files, self.ranks = tempfile.TemporaryDirectory(), []
        try:
            for _ in range(case.processes):
                self.ranks.append(Process("benchmarks.rank"))
            dtype = str(settings.dtype).removeprefix("torch.")
            join = {"do": "join", "case": case.name, "size": case.processes, "dtype": dtype}
            join |= {"threads": case.threads or settings.threads, "store": os.path.join(self.files.name, "store")}
            self.ask(*({**join, "rank": rank} for rank in range(case.processes)))
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def ask(self, *messages):
        """Tells each rank its message, or all the same one, and returns the answers; PeerError names who failed."""
        messages = messages * len(self.ranks) if len(messages) == 1 else messages
        for rank, message in zip(self.ranks, messages, strict=True):
            rank.tell(**message)
        answers, failures = [], []
        for index, rank in enumerate(self.ranks):
            try:
                answers.append(rank.hear())
            except PeerError as error:
                failures.append(f"rank {index}: {error}")
        if failures:
            raise PeerError("; ".join(failures))
        return answers

    def answer(self, contender, *inputs):
        """What rank 0 has at the end; all have begun with copies of the inputs."""
        file = os.path.join(self.files.name, "outcome")
        self.ask({"do": "answer", "contender": contender, "file": file})
        return torch.load(file, weights_only=True)

    def time(self, contender, calls, warm):
        """Seconds per call of the slowest rank; all begin together."""
        answers = self.ask({"do": "time", "contender": contender, "calls": calls, "warm": warm})
        return max(answer["seconds"] for answer in answers)

    def close(self):
        for rank in self.ranks:
            rank.close()
        self.files.cleanup()
