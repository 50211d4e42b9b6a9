"""What every judge returns, and how a person reads it."""

from collections.abc import Mapping

Verdict = dict[str, float | list[float]]  # values that JSON and checkpoints take; keys in the order of the table

TRANSPORT = {"w1": ("W₁", "#.3g"), "sliced_w": ("sliced W₁", "#.3g")}


def in_words(verdict: Verdict, real: Verdict, figures: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """figures: key → (name, format). Each figure beside what real samples get."""
    return {name: f"{verdict[key]:{form}} (real: {real[key]:{form}})" for key, (name, form) in figures.items()}
