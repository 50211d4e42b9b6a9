"""How good generated samples are: one judge per kind of data, each a verdict of plain numbers.

    judge = judge_of(data, dataset, labels)
    verdict = judge(batches)        # {"fid": 3.2, "w1": …}: into metrics.jsonl and checkpoints as it is
    judge.words(verdict)            # the same for a person, beside what real samples get
    judge.headline                  # the key of the one figure that says quality; lower is better

``digits``, ``images``, ``toys`` are the judges; ``fid``, ``neighbours``, ``transport``, ``modes`` the figures.
"""

from .correlation import correlation
from .judges import judge_of
from .verdict import Verdict

__all__ = ["Verdict", "correlation", "judge_of"]
