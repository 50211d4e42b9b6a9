"""All the cases, one file per op under the op's own stem."""

from fnmatch import fnmatchcase

from . import (
    adam,
    clip,
    critic_step,
    gradient_penalty,
    interpolate,
    iteration,
    iteration_clipped,
    layer_norm,
    norm_penalty,
    processes,
    rmsprop,
    scaling,
    time_to_quality,
    wasserstein,
    winograd,
)

FAMILIES = (
    clip,
    interpolate,
    norm_penalty,
    wasserstein,
    layer_norm,
    winograd,
    rmsprop,
    adam,
    gradient_penalty,
    critic_step,
    iteration,
    iteration_clipped,
    time_to_quality,
    scaling,
    processes,
)
CASES = tuple(case for family in FAMILIES for case in family.CASES)


def find(patterns):
    """The cases that any of ``patterns`` names: an op, a full name, or a glob over full names; all without patterns.

    Raises:
        LookupError: a pattern names nothing.
    """
    matched = {
        pattern: {c.name for c in CASES if pattern == c.op or fnmatchcase(c.name, pattern)} for pattern in patterns
    }
    for pattern, names in matched.items():
        if not names:
            raise LookupError(f"unknown case {pattern!r}; known: {', '.join(c.name for c in CASES)}")
    wanted = set().union(*matched.values())
    return [case for case in CASES if case.name in wanted or not patterns]
