"""Import torchvision also where its C++ operators cannot be loaded.

The ordinary torchvision wheel links its operators against CUDA; beside a CPU-only torch they stay
unregistered and `import torchvision` fails on two schemas that it only wants to describe. Models,
data sets and transforms need neither, so declaring the schemas first is enough.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library undoes its definitions when it is collected


def torchvision_module(name: str) -> ModuleType:
    """Import `torchvision.<name>`.

    Raises:
        ImportError: torchvision is not installed, or broken in another way.
    """
    try:
        return importlib.import_module(f"torchvision.{name}")
    except RuntimeError as cause:
        if "torchvision::nms" not in str(cause):
            raise
    for half_imported in [key for key in sys.modules if key.split(".")[0] == "torchvision"]:
        del sys.modules[half_imported]
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _declared.append(library)
    return importlib.import_module(f"torchvision.{name}")
