"""The tables of networks, and of libraries that have many."""

from __future__ import annotations

from robust_edge.plugins import Row

ARCHITECTURES = {
    "small_cnn": Row("robust_edge.models.small_cnn:small_cnn"),
    "slim_resnet": Row("robust_edge.models.slim_resnet:slim_resnet"),
    "resnet18": Row("robust_edge.models.resnet:resnet18"),
    "resnet34": Row("robust_edge.models.resnet:resnet34"),
    "mobilenet_v2": Row("robust_edge.models.mobilenet:mobilenet_v2"),
}
"""A row names a function `(num_classes, in_channels) -> nn.Module`."""

DEFAULT_ARCHITECTURE = "small_cnn"

ZOOS = {
    "torchvision": Row("robust_edge.models.zoos.torchvision:build", "any classifier of the installed torchvision"),
    "timm": Row("robust_edge.models.zoos.timm:build", "any classifier of the installed timm"),
}
"""A row names a function `(name, num_classes, in_channels) -> nn.Module`; its networks are called LIBRARY/NAME."""

GRAPH = "network.onnx"
"""The architecture of a network that was imported: the file of its graph, without weights, in the run's folder."""
