"""The gradient of the pixels through a first convolution, which has few input channels.

Kernels compute 16 channels at a time, so that a gradient of one or three channels wastes most of their work. Here a
block of neighbouring pixels takes the place of the missing channels: one convolution whose stride is the block's side
gives all pixels of a block as its output channels. On two CPU cores this takes two thirds of the time for three
channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDES = {1: 4, 2: 2, 3: 2, 4: 2}
"""The side of a block by the number of image channels: at most 16 output channels."""


def block_side(convolution: nn.Conv2d) -> int | None:
    """The side of the blocks for a convolution that keeps the image's size; None for any other convolution."""
    odd = all(side % 2 for side in convolution.kernel_size)
    same = convolution.padding == tuple(side // 2 for side in convolution.kernel_size)
    steps = (*convolution.stride, *convolution.dilation, convolution.groups)
    return SIDES.get(convolution.in_channels) if odd and same and set(steps) == {1} else None


def block_kernel(weight: Tensor, side: int) -> Tensor:
    """The kernel that `pixel_gradient` needs.

    Args:
        weight: (O, C, kh, kw) of the convolution; kh and kw are odd.
        side: B, the side of a block.

    Returns:
        (C·B·B, O, kh + B − 1, kw + B − 1): for each pixel of a block the reversed kernel, shifted by its position.
    """
    outputs, inputs, height, width = weight.shape
    kernel = weight.new_zeros(inputs, side, side, outputs, height + side - 1, width + side - 1)
    reverse = weight.flip(2, 3).transpose(0, 1)
    for row in range(side):
        for column in range(side):
            kernel[:, row, column, :, row : row + height, column : column + width] = reverse
    return kernel.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def pixel_gradient(gradient: Tensor, kernel: Tensor, side: int) -> Tensor:
    """The gradient of the loss with respect to the images.

    Args:
        gradient: (N, O, H, W), that with respect to the convolution's output; B divides H and W.
        kernel: as `block_kernel` returns it.
        side: B.

    Returns:
        (N, C, H, W) in the memory layout of `gradient`.
    """
    padding = [(length - side) // 2 for length in kernel.shape[2:]]
    blocks = functional.conv2d(gradient, kernel, stride=side, padding=padding)
    count, _, rows, columns = blocks.shape
    pixels = blocks.movedim(1, -1).reshape(count, rows, columns, -1, side, side).permute(0, 1, 4, 2, 5, 3)
    return pixels.reshape(count, rows * side, columns * side, -1).movedim(-1, 1)
