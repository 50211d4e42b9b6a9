"""The far end of ``ranks.py``: one of N processes that take the steps of a case together, over Gloo.

============================================  =============================================================
{"do": "join", "case", "rank", "size", …}     {}: makes the inputs of the case and takes this rank's share
{"do": "answer", "contender", "file"}         {}: runs it once on copies; rank 0 writes the outcome
{"do": "time", "contender", "calls", "warm"}  {"seconds"}: per call, all ranks having begun together
============================================  =============================================================
"""

import gc
from datetime import timedelta

import torch
import torch.distributed as dist

from . import gate
from .cases import find
from .harness import seconds_of
from .peers.worker import serve

CPU, TIMEOUT = torch.device("cpu"), timedelta(seconds=60)


class Rank:
    def join(self, case, rank, size, threads, dtype, store):
        torch.set_num_threads(threads)
        store = dist.FileStore(store, size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        (case,) = find([case])
        self.runs = {**case.contenders, **{name: run for name, (run, _) in case.units.items()}}
        torch.manual_seed(0)
        self.inputs = case.share(rank, *case.make(CPU, getattr(torch, dtype)))
        return {}

    def answer(self, contender, file):
        found = gate.tensors(gate.outcome(self.runs[contender], gate.clone(self.inputs)))
        if dist.get_rank() == 0:
            torch.save(tuple(found), file)
        return {}

    def time(self, contender, calls, warm):
        run = self.runs[contender]
        if warm:
            run(*self.inputs)
        gc.disable()
        try:
            dist.barrier()
            return {"seconds": seconds_of(run, [self.inputs], calls, CPU, warm=False)}
        finally:
            gc.enable()


if __name__ == "__main__":
    serve(Rank())
    if dist.is_initialized():
        dist.destroy_process_group()  # Gloo aborts a process that ends without
