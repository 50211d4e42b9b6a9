"""Optimal transport from generated samples to real ones, in the samples' own unit, by POT.

    W₁          min Σ γ_ij ‖x_i − y_j‖₂   over γ ≥ 0, Σ_j γ_ij = 1/n, Σ_i γ_ij = 1/m     (exact: network simplex)
    sliced W₁   mean over directions θ, ‖θ‖₂ = 1, of the W₁ of ⟨x, θ⟩ and ⟨y, θ⟩         (Bonneel et al. 2015)

Two finite sets of one distribution are not at distance 0: compare with what a second set of real samples gets. In many
dimensions W₁ is mostly that: 11.7 between two sets of 1,000 digits, 11.3 once one set is dimmed to 0.9 of its
brightness, for what is drawn to the middle comes nearer to all. Sliced W₁ sees it: 0.052 instead of 0.013.
"""

import torch

from .._optional import optional

# On one core of an AMD EPYC, with 5,000 samples: W₁ 0.17 s for digits, 0.07 s in the plane (of 2,000: 0.92 and 0.31);
# sliced W₁ 0.16 s (with 128 directions 0.32).
SOLVED = 1000
DIRECTIONS = 64
SEED = 0  # of the directions
PIVOTS = 10_000_000  # of the network simplex, which needs far fewer


def w1(x: torch.Tensor, y: torch.Tensor) -> float:
    """W₁ of two sets of equally weighted points: [n, d], [m, d], on any device."""
    # Float64: in float32 a point is up to 0.01 away from itself, for cdist multiplies matrices.
    costs = torch.cdist(x.double(), y.double()).cpu().numpy()
    return float(optional("ot", "the Wasserstein distance").emd2([], [], costs, numItermax=PIVOTS))


def sliced_w(x: torch.Tensor, y: torch.Tensor) -> float:
    """Sliced W₁ of two sets whose projections are x [n, L] and y [m, L]."""
    # On the CPU: of a GPU's floats POT's cumsum is refused under deterministic algorithms.
    return optional("ot", "the sliced Wasserstein distance").wasserstein_1d(x.cpu(), y.cpu(), p=1).mean().item()


def directions(dimensions: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """[d, DIRECTIONS], columns drawn uniformly from the unit sphere; the same on every device and in every call."""
    drawn = torch.randn(dimensions, DIRECTIONS, generator=torch.Generator().manual_seed(SEED))
    return (drawn / drawn.norm(dim=0)).to(device)


class Sketch:
    """What both distances need of a set: SOLVED of its samples, and the projections of all. Filled batch by batch."""

    def __init__(self, directions: torch.Tensor):
        self.directions = directions  # [d, L]
        self.points = directions.new_empty(0, len(directions))  # [≤ SOLVED, d]
        self._projections = []

    def add(self, samples: torch.Tensor) -> None:
        """samples: [B, …] of d numbers each. Raises ValueError if one is not finite: POT's solver would not end."""
        if not samples.isfinite().all():
            raise ValueError("samples: expected finite numbers, got NaN or infinity")
        flat = samples.flatten(1)
        self.points = torch.cat([self.points, flat[: SOLVED - len(self.points)]])
        self._projections.append(flat @ self.directions)

    @property
    def projections(self) -> torch.Tensor:
        """[N, L]"""
        return torch.cat(self._projections)


def distances(x: Sketch, y: Sketch) -> dict[str, float]:
    return {"w1": w1(x.points, y.points), "sliced_w": sliced_w(x.projections, y.projections)}
