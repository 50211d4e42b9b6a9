"""Adam with a clip in its step."""

from functools import partial

import torch

import wgan_kernels as wk

from ._optimizer import BOUND, cases, clamp, compiled, foreach_clamp, step_of

BETAS = (0.0, 0.9)
BASELINES = {
    "loop": step_of("loop", partial(torch.optim.Adam, betas=BETAS), clamp),
    "foreach": step_of("foreach", partial(torch.optim.Adam, betas=BETAS, foreach=True), foreach_clamp),
    "fused": step_of("fused", partial(torch.optim.Adam, betas=BETAS, fused=True), foreach_clamp),
    "compile": compiled("compile", partial(torch.optim.Adam, betas=BETAS, foreach=True)),
}

CASES = cases(
    "adam",
    partial(wk.optim.Adam, betas=BETAS, clip=BOUND),
    partial(wk.reference.optim.Adam, betas=BETAS, clip=BOUND),
    BASELINES,
    touched=7,  # weight and both averages read and written, gradient read
    operations=16,  # 7 for the averages, 5 to divide by the root with both corrections, 2 to subtract, 2 to clip
)
