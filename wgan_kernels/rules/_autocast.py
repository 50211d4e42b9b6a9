"""What autocast does to a layer's operands, for layers that it does not know."""

import torch


def under_autocast(layer, input, weight, bias, *how):
    """layer(input, weight, bias, *how) with the casts of autocast, on the graph; None where the dtypes do not agree."""
    device = input.device.type
    is_enabled = torch.is_autocast_enabled(device)
    if is_enabled:
        dtype = torch.get_autocast_dtype(device)
        input, weight, bias = (
            t if t is None or t.dtype is torch.float64 else t.to(dtype) for t in (input, weight, bias)
        )
    if weight.dtype is not input.dtype or (bias is not None and bias.dtype is not input.dtype):
        return None
    if not is_enabled:
        return layer(input, weight, bias, *how)
    with torch.autocast(device, enabled=False):
        return layer(input, weight, bias, *how)
