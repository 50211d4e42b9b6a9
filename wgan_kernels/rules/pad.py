"""Padding that repeats x: y = A x, by reflection or replication of its edges, around an image [B, channels, …].

PyTorch sends zeros through the critic here, as of any backward kernel that is handed x for its shape. Padding with a
constant and circular padding are differentiated without.
"""

import torch
import torch.nn.functional as F

from .piecewise import Maps, piecewise

aten = torch.ops.aten
_KERNELS = {
    ("reflect", 1): (aten.reflection_pad1d, aten.reflection_pad1d_backward),
    ("reflect", 2): (aten.reflection_pad2d, aten.reflection_pad2d_backward),
    ("reflect", 3): (aten.reflection_pad3d, aten.reflection_pad3d_backward),
    ("replicate", 1): (aten.replication_pad1d, aten.replication_pad1d_backward),
    ("replicate", 2): (aten.replication_pad2d, aten.replication_pad2d_backward),
    ("replicate", 3): (aten.replication_pad3d, aten.replication_pad3d_backward),
}


def _pad(input, pad, mode="constant", value=None):
    pad = list(pad)
    kernels = _KERNELS.get((mode, len(pad) // 2))
    half = input.dtype not in (torch.float32, torch.float64)
    if kernels is None or value or (half and torch.is_autocast_enabled(input.device.type)):
        return None
    forward, backward = kernels
    return piecewise(
        input,
        Maps(lambda x: (forward(x, pad), x), lambda delta, x: backward(delta, x, pad), lambda t, x: forward(t, pad)),
    )


ROUTES = {F.pad: _pad}
