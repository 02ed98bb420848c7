"""Three convolutions and a linear layer: 94 k weights with one input channel; trains in seconds on small images."""

from __future__ import annotations

from torch import nn


def small_cnn(num_classes: int, in_channels: int) -> nn.Module:
    """Convolutions C-32-64-128 of size 3×3 and strides 1, 2, 2, batch-norm, global average, linear.

    Args:
        num_classes: K, the number of logits.
        in_channels: C; images may have any size from 4×4 pixels.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for width, stride in ((32, 1), (64, 2), (128, 2)):
        layers += [
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers)
