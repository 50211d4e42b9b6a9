"""The earth mover's distance of two discrete distributions, by four ways that agree, and by a critic.

    python examples/earth_mover.py --out earth_mover.png

    W₁ = Σ |F_r − F_t|                                    by the cumulative distributions
       = min Σ γ_ij |i − j|    γ ≥ 0, Σ_j γ_ij = P_r(i), Σ_i γ_ij = P_t(j)             the primal problem
       = max Σ f P_r + g P_t   f(i) + g(j) ≤ |i − j|                                   the dual problem
       = max E f(x_r) − E f(x_t)   over f whose slopes are at most 1                   what a critic is trained for

The distributions are those of seed S0b, on ten points. Needs the ``gallery`` extra.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from experiment import CRITIC, EXACT, MODEL, REAL, Options, network, panels, save, train_critic
from script import main, progress

from wgan_kernels.training._optional import MissingPackage

P_R = torch.tensor([12, 7, 4, 1, 19, 14, 9, 6, 3, 2], dtype=torch.float64)
P_T = torch.tensor([1, 5, 11, 17, 13, 9, 6, 4, 3, 2], dtype=torch.float64)
P_R, P_T = P_R / P_R.sum(), P_T / P_T.sum()
POINTS = torch.arange(len(P_R), dtype=torch.float64)
CENTRE, SPREAD = POINTS.mean(), POINTS.std(correction=0)
TWO_SIDED = "C8"
INPUTS = ((POINTS - CENTRE) / SPREAD).float()[:, None]  # [10, 1]: the points as a network sees them


@dataclass(frozen=True, kw_only=True)
class Config(Options):
    """The earth mover's distance of two discrete distributions, by four ways that agree, and by a critic."""

    out: Path = Path("earth_mover.png")
    steps: int = 1000


@dataclass(frozen=True)
class Transport:
    """The solution of both linear programs: n points each."""

    distance: torch.Tensor  # [n, n]
    plan: torch.Tensor  # [n, n], γ
    f: torch.Tensor  # [n]
    g: torch.Tensor  # [n]

    @property
    def primal(self) -> float:
        return (self.plan * self.distance).sum().item()

    def dual(self, p: torch.Tensor, q: torch.Tensor) -> float:
        return (self.f @ p + self.g @ q).item()


def transport(p: torch.Tensor, q: torch.Tensor, points: torch.Tensor) -> Transport:
    """By POT's network simplex. p, q: [n], sums 1; points: [n]."""
    try:
        import ot
    except ImportError as error:
        raise MissingPackage(f'the transport plan needs POT ({error}): pip install "wgan-kernels[gallery]"') from error
    distance = (points[:, None] - points).abs()
    plan, log = ot.emd(p, q, distance, log=True)
    return Transport(distance, plan, log["u"], log["v"])


def by_cumulative_distributions(p: torch.Tensor, q: torch.Tensor, points: torch.Tensor) -> float:
    """∫ |F_p − F_q| dx of distributions p, q [n] on ascending points [n]."""
    return ((p - q).cumsum(0)[:-1].abs() * points.diff()).sum().item()


@torch.no_grad()
def found_by(critic: torch.nn.Module) -> tuple[torch.Tensor, float, float]:
    """(f at the points [n], in their unit; E f(x_r) − E f(x_t); that over the steepest slope between neighbours)."""
    f = critic(INPUTS).squeeze(1).double() * SPREAD
    value = (f @ (P_R - P_T)).item()
    return f, value, value / f.diff().abs().max().clamp(min=1e-9).item()


def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(INPUTS[torch.multinomial(p, count, replacement=True)] for p in (P_R, P_T))


def run(config: Config) -> dict[str, float]:
    """Solves, trains, draws; returns what was measured."""
    solved = transport(P_R, P_T, POINTS)
    exact = by_cumulative_distributions(P_R, P_T, POINTS)
    critics, traces = {}, {}
    with progress(2 * config.steps) as advance:
        for penalty in ("one-sided", "gp"):
            torch.manual_seed(config.seed)
            critic = critics[penalty] = network(1, config.width)
            values = traces[penalty] = []
            for _ in train_critic(critic, draw, config, penalty=penalty):
                values.append(found_by(critic)[1])
                advance(f"critic's value {values[-1]:.3f}, W₁ {exact:.3f}")
    potentials = {penalty: found_by(critic)[0] for penalty, critic in critics.items()}
    _, value, bound = found_by(critics["one-sided"])
    measured = {
        "cumulative": exact,
        "primal": solved.primal,
        "dual": solved.dual(P_R, P_T),
        "largest |f + g|": (solved.f + solved.g).abs().max().item(),
        "stays": solved.plan.trace().item(),
        "critic": value,
        "critic, over its steepest slope": bound,
        "critic, two-sided penalty": found_by(critics["gp"])[1],
    }
    sentences = [
        f"W₁ is {exact:.6f} by the cumulative distributions, {measured['primal']:.6f} by the transport plan and "
        f"{measured['dual']:.6f} by the dual potentials; the largest |f + g| is {measured['largest |f + g|']:.1g}. "
        f"In this plan, one of many as good, {measured['stays']:.1%} of the earth stays where it is.",
        f"A critic {config.width}-{config.width} wide found {value:.4f} ({value / exact - 1:+.1%}) in {config.steps} "
        f"updates with the one-sided penalty. Over its steepest slope that is {bound:.4f} ({bound / exact - 1:+.1%}); "
        "this quotient cannot exceed W₁, whatever the critic.",
        f"With the two-sided penalty the same critic found {measured['critic, two-sided penalty']:.4f}: on a line its "
        "slope cannot turn from −1 to 1 without passing 0, and there this penalty is at its highest.",
    ]
    save(picture(solved, potentials, traces, exact), config, measured, sentences)
    return measured


def picture(solved: Transport, potentials, traces, exact: float):
    """The figure of eight panels."""
    drawn, ((piles, distance, plan, work), (moved, cumulative, dual, training)) = panels(2, 4)
    places = range(len(POINTS))
    for axes, title in (piles, "two piles of earth"), (moved, "$P_t$, by where its earth came from"):
        axes.set(title=title, xlabel="point", ylabel="share of the earth", xticks=places, ylim=(0, 0.27))
    for shift, p, colour, name in (-0.2, P_R, REAL, "$P_r$"), (0.2, P_T, MODEL, "$P_t$"):
        piles.bar(POINTS + shift, p, 0.4, color=colour, label=name)
    piles.legend()
    shades = _matrix(drawn, distance, solved.distance, "distance matrix |i − j|", "viridis")
    _matrix(drawn, plan, solved.plan, "transport plan γ", "Blues")
    _matrix(drawn, work, solved.plan * solved.distance, f"γ · distance; the sum is {solved.primal:.4f}", "Reds")
    below = torch.zeros_like(P_T)
    colours = shades.cmap(torch.linspace(0, 1, len(POINTS)).numpy())
    for origin, share in enumerate(solved.plan):
        moved.bar(POINTS, share, 0.8, bottom=below, color=colours[origin], label=str(origin))
        below = below + share
    moved.legend(title="from", ncols=2, fontsize="small")
    for p, colour, name in (P_R, REAL, "$F_r$"), (P_T, MODEL, "$F_t$"):
        cumulative.step(POINTS, p.cumsum(0), where="post", color=colour, label=name)
    cumulative.fill_between(POINTS, P_R.cumsum(0), P_T.cumsum(0), step="post", color="0.85", label=f"area {exact:.4f}")
    cumulative.set(title="cumulative distributions", xlabel="point", xticks=places, ylim=(0, 1.05))
    cumulative.legend()
    dual.plot(POINTS, _centred(solved.f), color=EXACT, linewidth=4, alpha=0.4, label="f, dual potential")
    dual.plot(POINTS, _centred(solved.g), color=EXACT, linestyle=":", label="g = −f")
    dual.plot(POINTS, _centred(potentials["one-sided"]), "o-", color=CRITIC, markersize=4, label="critic, one-sided")
    dual.plot(POINTS, _centred(potentials["gp"]), "x--", color=TWO_SIDED, markersize=4, label="critic, two-sided")
    dual.set(title="potentials, up to a constant", xlabel="point", xticks=places, ylim=(-5.2, 9))
    training.plot(traces["one-sided"], color=CRITIC, linewidth=0.8, label="one-sided penalty")
    training.plot(traces["gp"], color=TWO_SIDED, linewidth=0.8, label="two-sided penalty")
    training.axhline(exact, color=EXACT, linestyle="--", label=f"W₁ {exact:.4f}")
    training.set(title="the critic's E f($x_r$) − E f($x_t$)", xlabel="update")
    for axes in (dual, training):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return drawn


def _matrix(drawn, axes, values, title, cmap):
    image = axes.imshow(values, cmap=cmap)
    axes.set(
        title=title, xlabel="j, in $P_t$", ylabel="i, in $P_r$", xticks=range(len(values)), yticks=range(len(values))
    )
    drawn.colorbar(image, ax=axes, shrink=0.8)
    return image


def _centred(f: torch.Tensor) -> torch.Tensor:
    return f - f.mean()


if __name__ == "__main__":
    sys.exit(main(Config, run, __doc__))
