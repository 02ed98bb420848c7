"""Classifiers of torchvision by name, with random weights."""

from __future__ import annotations

from torch import nn

from robust_edge.models.zoos.channels import with_channels
from robust_edge.torchvision_compat import torchvision_module
from robust_edge_runtimes.core.errors import unknown_name

WITH_AUXILIARY = ("googlenet", "inception_v3")
"""Networks with auxiliary classifiers, which are of use in training only and are left out."""


def build(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a classifier of the installed torchvision.

    Raises:
        InputError: torchvision has no classifier of this name.
    """
    models = torchvision_module("models")
    names = models.list_models(module=models)
    if name not in names:
        raise unknown_name("model of torchvision", name, names)
    own = {"aux_logits": False, "init_weights": True} if name in WITH_AUXILIARY else {}
    return with_channels(models.get_model(name, weights=None, num_classes=num_classes, **own), in_channels)
