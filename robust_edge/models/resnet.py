"""torchvision's ResNets with a stem for small images: a 3×3 convolution of stride 1, no max-pool."""

from __future__ import annotations

from torch import nn

from robust_edge.torchvision_compat import torchvision_module


def resnet18(num_classes: int, in_channels: int) -> nn.Module:
    """ResNet18: 0.56 GMAC at 32×32."""
    return _small_image_stem(torchvision_module("models").resnet18(num_classes=num_classes), in_channels)


def resnet34(num_classes: int, in_channels: int) -> nn.Module:
    """ResNet34: 1.16 GMAC at 32×32."""
    return _small_image_stem(torchvision_module("models").resnet34(num_classes=num_classes), in_channels)


def _small_image_stem(network: nn.Module, in_channels: int) -> nn.Module:
    network.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network
