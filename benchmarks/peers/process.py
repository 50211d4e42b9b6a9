"""Processes that are spoken to; a baseline in one of them, and in an environment of its own where packages clash."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy
import torch

from . import PROCESSES

ROOT = Path(__file__).parent.parent.parent
SECONDS = 300  # for one answer, compilation included


class PeerError(RuntimeError):
    """The process cannot be started, has ended, took too long, or says that it cannot do it."""


class Process:
    """``python -m module``, which reads an object of JSON a line and answers with one (``worker.serve``).

    Raises:
        PeerError: there is no such interpreter.
    """

    def __init__(self, module, python=sys.executable):
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "JAX_PLATFORMS": "cpu"}
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.process = subprocess.Popen(
                [os.path.abspath(python) if os.sep in python else python, "-m", module],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        except OSError as error:
            self.log.close()
            raise PeerError(f"cannot start {python}: {error.strerror}") from None

    def tell(self, **message):
        """Its answer has to be heard before it is told more."""
        with contextlib.suppress(OSError):  # of a process that has ended: so says hear
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def hear(self):
        """
        Raises:
            PeerError: there is no answer, or the answer is an error.
        """
        late = threading.Timer(SECONDS, self.process.kill)
        try:
            late.start()  # in here: had Ctrl-C come meanwhile, nobody could leave before it is over
            line = self.process.stdout.readline()
        finally:
            late.cancel()
        if not line:
            raise PeerError(f"the process ended: {self.last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def ask(self, **message):
        """What it answers, or PeerError."""
        self.tell(**message)
        return self.hear()

    def last_words(self):
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Peer(Process):
    """A framework of ``PROCESSES``.

    Raises:
        PeerError: there is no such interpreter, or it lacks a package.
    """

    def __init__(self, module, python, threads):
        super().__init__(module, python)
        self.files = tempfile.TemporaryDirectory()
        try:
            self.versions = self.ask(do="hello", threads=threads)["versions"]
        except PeerError:
            self.close()
            raise

    def answer(self, told, *inputs):
        """The outcome of the task on these inputs, as tensors. It stays loaded, for ``time``."""
        task, tensors = told(*inputs)
        given, found = (os.path.join(self.files.name, name) for name in ("given.npz", "found.npz"))
        numpy.savez(given, **{name: tensor.detach().numpy() for name, tensor in tensors.items()})
        self.ask(do="load", task=task, file=given)
        self.ask(do="answer", file=found)
        with numpy.load(found) as arrays:
            return tuple(torch.from_numpy(arrays[str(index)]) for index in range(len(arrays)))

    def time(self, calls, warm=True):
        """Seconds per call, of so many, after one more where ``warm``."""
        return self.ask(do="time", calls=calls, warm=warm)["seconds"]

    def close(self):
        super().close()
        self.files.cleanup()


class Peers:
    """Started when first wanted, closed together. ``pythons``: {name: interpreter}, this one where none is named."""

    def __init__(self, threads, pythons=()):
        self.threads, self.pythons = threads, dict(pythons)
        self.running, self.unable = {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for peer in self.running.values():
            peer.close()

    def start(self, name):
        """
        Raises:
            PeerError: it does not run here; asked again, at once.
        """
        if name in self.unable:
            raise self.unable[name]
        if name not in self.running:
            try:
                self.running[name] = Peer(PROCESSES[name], self.pythons.get(name, sys.executable), self.threads)
            except PeerError as error:
                missing = "not installed: " if "No module named" in str(error) else ""
                self.unable[name] = PeerError(f"{missing}{error}")
                raise self.unable[name] from None
        return self.running[name]

    def versions(self):
        return {name: peer.versions for name, peer in self.running.items()}
