"""The kernels of the engine: one module and one header of csrc each, with one row here.

A module defines `KERNEL`, an instance of a subclass of `kernel.Kernel`. Of the kernels that suit a layer the plan takes
the one of the least cost, the first in the table where several cost the same.
"""

from importlib import import_module
from typing import Any

from robust_edge_exporters.native.kernel import Kernel

NAMES = (
    "conv_dense",
    "conv_depthwise",
    "conv_columns",
    "conv_taps",
    "conv_sparse",
    "linear_dense",
    "linear_sparse",
)

KERNELS: tuple[Kernel[Any, Any], ...] = tuple(import_module(f"{__name__}.{name}").KERNEL for name in NAMES)
