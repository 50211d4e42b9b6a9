"""Normalisation of each sample by its own statistics.

Layer: Ba, Kiros and Hinton 2016, equation 4; group: Wu and He 2018, equations 1, 2 and 6; RMS: Zhang and Sennrich 2019,
equation 4.
"""


def layer_norm(x, shape, w, b, eps):
    """(x − μ)/√(var + eps)·w + b, by the mean and variance over the last dimensions of x, which w and b have too."""
    dims = tuple(range(-len(shape), 0))
    variance, mean = x.var(dims, correction=0, keepdim=True), x.mean(dims, keepdim=True)
    return _affine((x - mean) / (variance + eps).sqrt(), w, b)


def group_norm(x, groups, w, b, eps):
    """The same over the pixels and channels of each group of channels. x: [B, C, …]; w, b: [C]."""
    rows = x.unflatten(1, (groups, -1))
    normalised = layer_norm(rows, rows.shape[2:], None, None, eps).flatten(1, 2)
    return _affine(normalised, *(None if t is None else t.view(-1, *[1] * (x.dim() - 2)) for t in (w, b)))


def rms_norm(x, shape, w, eps):
    """x/√(mean x² + eps)·w, over the last dimensions of x, which w has too."""
    square = x.square().mean(tuple(range(-len(shape), 0)), keepdim=True)
    return _affine(x / (square + eps).sqrt(), w, None)


def _affine(x, w, b):
    x = x if w is None else x * w
    return x if b is None else x + b
