"""The first convolution of a network for another number of image channels."""

from __future__ import annotations

from torch import nn


def with_channels(network: nn.Module, in_channels: int) -> nn.Module:
    """Replace the first convolution, which expects images of 3 channels, if they have another number.

    Args:
        network: changed in place.
        in_channels: C.
    """
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels != in_channels:
        owner, _, own = name.rpartition(".")
        setattr(network.get_submodule(owner), own, _like(first, in_channels))
    return network


def _like(layer: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
