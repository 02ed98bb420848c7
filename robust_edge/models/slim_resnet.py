"""A ResNet18 of a quarter of the channels, for training in hours on two cores: 0.70 M weights, 35 MMAC at 32×32."""

from __future__ import annotations

from torch import nn

from robust_edge.torchvision_compat import torchvision_module

WIDTHS = (16, 32, 64, 128)
BLOCKS = 2  # per width


def slim_resnet(num_classes: int, in_channels: int) -> nn.Module:
    """A stem of stride 1, then two basic blocks for each of the widths 16, 32, 64 and 128, which halve the planes.

    Args:
        num_classes: K, the number of logits.
        in_channels: C; images may have any size from 8×8 pixels.
    """
    block = torchvision_module("models.resnet").BasicBlock
    layers: list[nn.Module] = [*_convolution(in_channels, WIDTHS[0], 3, 1), nn.ReLU(inplace=True)]
    channels = WIDTHS[0]
    for width in WIDTHS:
        for number in range(BLOCKS):
            stride = 2 if number == 0 and width != WIDTHS[0] else 1
            shortcut = nn.Sequential(*_convolution(channels, width, 1, stride)) if channels != width else None
            layers.append(block(channels, width, stride, shortcut))
            channels = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> tuple[nn.Module, nn.Module]:
    layer = nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)
    return layer, nn.BatchNorm2d(outputs)
