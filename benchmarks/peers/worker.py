"""The far end of ``process.py``: reads one JSON object a line, does it, answers with one.

================================  ==================================================================================
{"do": "hello", "threads"}        {"versions": {package: version}}
{"do": "load", "task", "file"}    {}: builds the task with the arrays of an npz file, or only takes these over
{"do": "answer", "file"}          {}: does the task once, and writes the arrays of its outcome, in PyTorch's layout
{"do": "time", "calls", "warm"}   {"seconds"}: per call of so many, after one more where warm
================================  ==================================================================================

Whatever fails is answered with {"error": one line}. Needs NumPy and the framework, no PyTorch.
"""

import json
import os
import sys
import time
import traceback

import numpy

from . import layout


def hold_to(threads):
    """As many cores as the others have threads. Frameworks size their pools by it, at the first call of theirs."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Worker:
    """A framework at work. ``framework()`` returns an object with ``versions`` and ``build(task, weights, inputs)``,
    and with ``layout`` where its arrays lie otherwise than ``layout.py`` says.

    What that builds has ``assign(weights, inputs)``, ``step()``, which does the task once and returns the arrays of its
    outcome, and ``wait()``, which returns when all steps are done.
    """

    def __init__(self, framework):
        self.make, self.kind, self.step = framework, None, None

    def hello(self, threads):
        hold_to(threads)
        self.framework = self.make(threads)
        self.layout = getattr(self.framework, "layout", layout)
        return {"versions": self.framework.versions}

    def load(self, task, file):
        with numpy.load(file) as arrays:
            arrays = dict(arrays)
        weights, self.layouts, self.shapes = {}, {}, {}
        for name, layers in task["networks"].items():
            own = [arrays.pop(f"{name}.{index}") for index in range(task["parameters"][name])]
            self.shapes[name] = [array.shape for array in own]
            self.layouts[name] = list(self.layout.parameters(layers, self.shapes[name]))
            weights[name] = [way.there(array) for way, array in zip(self.layouts[name], own, strict=True)]
        inputs = {name: self.layout.samples(array.shape).there(array) for name, array in arrays.items()}
        kind = task, {name: array.shape for name, array in inputs.items()}
        if kind == self.kind:
            self.step.assign(weights, inputs)
        else:
            self.step, self.kind = self.framework.build(task, weights, inputs), kind
        return {}

    def answer(self, file):
        outcome = self.step.step()
        arrays = [numpy.asarray(value) for value in outcome.get("values", ())]
        task = self.kind[0]
        for name in task.get("outcome", task["networks"]):
            network = name.partition(" ")[0]
            found = zip(self.layouts[network], outcome[name], self.shapes[network], strict=True)
            arrays += [way.back(numpy.asarray(array), shape) for way, array, shape in found]
        numpy.savez(file, **{str(index): array for index, array in enumerate(arrays)})
        return {}

    def time(self, calls, warm):
        if warm:
            self.step.step()
            self.step.wait()
        start = time.perf_counter()
        for _ in range(calls):
            self.step.step()
        self.step.wait()
        return {"seconds": (time.perf_counter() - start) / calls}


def serve(worker):
    """Does what ``worker`` is told to, until the other end closes.

    What anything prints goes to stderr, so that nothing comes between the answers.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        message = json.loads(line)
        try:
            reply = getattr(worker, message.pop("do"))(**message)
        except Exception as error:  # a failure is the answer, and the other end reports it
            traceback.print_exc()
            last = (str(error).strip() or "no message").splitlines()[-1].strip()  # after the excerpts of code
            reply = {"error": f"{type(error).__name__}: {last}"}
        print(json.dumps(reply), file=answers, flush=True)
