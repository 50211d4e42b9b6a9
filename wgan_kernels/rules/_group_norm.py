"""Images normalised by groups of their channels in channels-last memory, and the first two derivatives, on a CPU:
``rules/norm.py`` has the calculus.

x, delta, t: contiguous [samples, …, channels]; w, b: [channels] or None; mean, rstd: [samples·groups].
"""

from typing import NamedTuple

import torch

from .. import _dispatch, _library


def _stats(x, groups):
    return [x.new_empty(len(x) * groups) for _ in range(2)]


_library.define_compiled(
    "group_norm_fwd(Tensor x, Tensor? w, Tensor? b, int groups, float eps) -> (Tensor, Tensor, Tensor)",
    fake=lambda x, w, b, groups, eps: (torch.empty_like(x), *_stats(x, groups)),
)
_library.define_compiled(
    "group_norm_bwd(Tensor delta, Tensor x, Tensor? w, Tensor mean, Tensor rstd, int groups, bool x_asked)"
    " -> (Tensor, Tensor, Tensor)",
    fake=lambda delta, x, w, mean, rstd, groups, x_asked: (
        torch.empty_like(x) if x_asked else x.new_empty(0),
        *(x.new_empty(x.shape[-1]) for _ in range(2)),
    ),
)
_library.define_compiled(
    "group_norm_bwd_bwd(Tensor t, Tensor delta, Tensor x, Tensor? w, Tensor mean, Tensor rstd, int groups)"
    " -> (Tensor, Tensor, Tensor)",
    fake=lambda t, delta, x, w, mean, rstd, groups: (
        torch.empty_like(x),
        torch.empty_like(x),
        x.new_empty(x.shape[-1]),
    ),
)
fwd = torch.ops.wgan_kernels.group_norm_fwd.default
bwd = torch.ops.wgan_kernels.group_norm_bwd.default
bwd_bwd = torch.ops.wgan_kernels.group_norm_bwd_bwd.default


class Channels(NamedTuple):
    """How images are seen: their channels as neighbours, in groups. As ``rules.norm.Rows``."""

    groups: int
    bends_bias: bool
    eps: float

    def rows(self, x):
        """Of one sample: as many statistics."""
        return self.groups

    def weights(self, x):
        return x.shape[-1]

    def spread(self, w):
        return None if w is None else w.contiguous()

    def gather(self, grad, like):
        return grad.view(like.shape).to(like.dtype)

    def fwd(self, x, w, b):
        return fwd(x, w, b, self.groups, self.eps)

    def bwd(self, delta, x, w, stats, x_asked, weights_asked):
        return bwd(delta, x, w, *stats, self.groups, x_asked)  # the sums over samples cost next to nothing

    def bwd_bwd(self, t, delta, x, w, stats, *asked):
        return bwd_bwd(t, delta, x, w, *stats, self.groups)


def serve(x, dtype):
    """Whether the kernels take images x in channels-last memory, of which the arithmetic is in that dtype."""
    return dtype in (torch.float32, torch.float64) and x.numel() > 0 and _dispatch.takes_compiled(x.device)
