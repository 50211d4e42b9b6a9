"""RMSprop with a clip in its step: the original WGAN's update of its critic."""

from functools import partial

import torch

import wgan_kernels as wk

from ._optimizer import BOUND, cases, clamp, compiled, foreach_clamp, step_of

BASELINES = {
    "loop": step_of("loop", torch.optim.RMSprop, clamp),
    "foreach": step_of("foreach", partial(torch.optim.RMSprop, foreach=True), foreach_clamp),
    "compile": compiled("compile", partial(torch.optim.RMSprop, foreach=True)),
}

CASES = cases(
    "rmsprop",
    partial(wk.optim.RMSprop, clip=BOUND),
    partial(wk.reference.optim.RMSprop, clip=BOUND),
    BASELINES,
    touched=5,  # weight and average read and written, gradient read
    operations=11,  # 4 for the average, 3 to divide by its root, 2 to subtract, 2 to clip
)
