"""torchvision's MobileNetV2 with a stem for small images: the first two strides are 1 instead of 2."""

from __future__ import annotations

from torch import nn

from robust_edge.torchvision_compat import torchvision_module

# expansion, channels, blocks, stride; the stride of the second row is 2 in the original
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(num_classes: int, in_channels: int) -> nn.Module:
    """MobileNetV2: 0.09 GMAC at 32×32."""
    network = torchvision_module("models").mobilenet_v2(
        num_classes=num_classes, inverted_residual_setting=[list(stage) for stage in STAGES]
    )
    stem = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    network.features[0][0] = stem
    return network  # type: ignore[no-any-return]
