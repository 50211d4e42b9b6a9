"""Attention: softmax(q kᵀ·scale + mask) v.

The fused kernels that PyTorch would take have no double backward, on any device ("derivative for
aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented"). Its composite one has, to any order:
two matrix products and a softmax. It is called by name, since ``torch.nn.attention.sdpa_kernel`` would choose it for
the whole process, whatever its other threads do.
"""

import torch
import torch.nn.functional as F


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False, **unknown
):
    """query, key, value: [B, …, tokens, width]."""
    if unknown:
        return None
    device = query.device.type
    if torch.is_autocast_enabled(device):
        query, key, value, attn_mask = (
            _cast(t, torch.get_autocast_dtype(device)) for t in (query, key, value, attn_mask)
        )
    if len({query.dtype, key.dtype, value.dtype}) > 1:
        return None
    if attn_mask is not None and attn_mask.dtype is torch.bool:  # True: may be attended to
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -torch.inf)
    with torch.autocast(device, enabled=False):
        return torch.ops.aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]


def _cast(tensor, dtype):
    return tensor if tensor is None or tensor.dtype in (torch.float64, torch.bool) else tensor.to(dtype)


def _multi_head(*args, need_weights=True, average_attn_weights=True, **kwargs):
    """The function of ``nn.MultiheadAttention``, whose fused kernel is called only where nobody wants the weights."""
    if need_weights or len(args) > _BEFORE_NEED_WEIGHTS:
        return None
    output, _ = F.multi_head_attention_forward(*args, need_weights=True, average_attn_weights=False, **kwargs)
    return output, None


_BEFORE_NEED_WEIGHTS = 15

ROUTES = {F.scaled_dot_product_attention: _attention, F.multi_head_attention_forward: _multi_head}
