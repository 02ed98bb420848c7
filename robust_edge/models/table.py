"""The table of networks; a row names a function `(num_classes, in_channels) -> nn.Module`."""

from __future__ import annotations

from robust_edge.plugins import Row

ARCHITECTURES = {
    "small_cnn": Row("robust_edge.models.small_cnn:small_cnn"),
    "resnet18": Row("robust_edge.models.resnet:resnet18"),
    "resnet34": Row("robust_edge.models.resnet:resnet34"),
    "mobilenet_v2": Row("robust_edge.models.mobilenet:mobilenet_v2"),
}
