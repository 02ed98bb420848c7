"""Classifiers of timm by name, with random weights; the library is an optional one."""

from __future__ import annotations

from torch import nn

from robust_edge.torchvision_compat import prepare_torchvision
from robust_edge_runtimes.core.errors import BackendUnavailable, unknown_name


def build(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a classifier of the installed timm.

    Raises:
        BackendUnavailable: timm is not installed.
        InputError: it has no model of this name.
    """
    prepare_torchvision()
    try:
        import timm
    except ImportError as cause:
        raise BackendUnavailable(f"timm/{name} needs timm: pip install 'robust-edge[timm]'") from cause
    if not timm.is_model(name):
        raise unknown_name("model of timm", name, timm.list_models())
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels)
    return network
