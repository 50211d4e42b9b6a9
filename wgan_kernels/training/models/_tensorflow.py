"""What TensorFlow and Keras do without being told, for the networks that come from there."""

from torch import nn

NORM_EPS = 1e-3  # of Keras' BatchNormalization and LayerNormalization


def same_convolution(side: int, channels: int, wider: int, kernel: int, stride: int = 2) -> list[nn.Module]:
    """A convolution of images of ``side`` pixels with padding="same".

    ::

        total = max((⌈side / stride⌉ − 1)·stride + kernel − side, 0)
        before = ⌊total / 2⌋, after = total − before

    An odd total puts one zero more behind the image than before it: a kernel of 3 that makes 14 pixels of 28 has none
    before and one after. PyTorch's padding, the same on both sides, would move its grid by one pixel.
    """
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    behind = [nn.ZeroPad2d((0, 1, 0, 1))] if total % 2 else []
    return [*behind, nn.Conv2d(channels, wider, kernel, stride, padding=total // 2)]
