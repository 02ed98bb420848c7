"""Import torchvision even where its C++ operators cannot be loaded.

The default torchvision wheel links its operators against CUDA. With a CPU-only torch they are not registered, and
`import torchvision` fails because it refers to the schemas of two of them. Models, data sets and transforms do not
use these operators, so it is enough to declare the schemas first.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from types import ModuleType

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library removes its definitions when it is garbage-collected


def prepare_torchvision() -> None:
    """Import torchvision where it is installed, so that `import torchvision` in any module works afterwards."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is not None:
        with contextlib.suppress(Exception):  # broken in another way, which matters only to those who import it
            torchvision_module("version")


def torchvision_module(name: str) -> ModuleType:
    """Import `torchvision.<name>`.

    Raises:
        ImportError: torchvision is not installed, or is broken in another way.
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
