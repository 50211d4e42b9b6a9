"""Which modes of the data are generated, and how evenly: of K modes that the data have in equal shares.

    good       within GOOD standard deviations of the nearest mode (Srivastava et al. 2017, section 4.1)
    covered    modes with at least COVERED of a K-th of all samples
    KL         Σ p_k log(K p_k), p: the shares of the modes among the samples that belong to one of them;
               0 for even shares, log K for a single mode (the reverse KL of Metz et al. 2017, on stacked MNIST)

Srivastava et al. call a mode covered from the first good sample on. That is too easy here: of 5,000 points all over
the square around the 8 gaussians, each mode gets three, and the digit classifier takes 1 digit of 100 for another.
"""

import math

import torch

GOOD = 3.0  # standard deviations: 1 − e^−4.5 = 98.9 % of a gaussian in the plane
COVERED = 0.1


def good_per_mode(samples: torch.Tensor, modes: torch.Tensor, spread: float) -> torch.Tensor:
    """samples [N, d], modes [K, d], their standard deviation → [K]: the good samples of which it is the nearest."""
    distance, nearest = torch.cdist(samples, modes, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    return torch.bincount(nearest[distance <= GOOD * spread], minlength=len(modes))


def covered(counts: torch.Tensor, total: int) -> int:
    """How many modes: counts [K] of ``total`` samples, of which some may belong to no mode."""
    return int((counts >= COVERED * total / len(counts)).sum())


def kl_to_uniform(counts: torch.Tensor) -> float:
    """counts [K] → [0, log K]; log K, the worst, also where no sample belongs to a mode."""
    if not counts.any():
        return math.log(len(counts))
    shares = counts.double() / counts.sum()
    # Rounding takes even shares to about −1e-17.
    return max(0.0, torch.xlogy(shares, len(counts) * shares).sum().item())
