"""The table of kernels; each has a module and a header of csrc.

A module defines `KERNEL`, an instance of a subclass of `kernel.Kernel`. Of the kernels that suit a layer the plan uses
the one with the smallest cost, and of several with the same cost the first in the table.
"""

from importlib import import_module
from typing import Any

from robust_edge_exporters.native.kernel import Kernel

MODULES = (
    "conv_dense",
    "conv_depthwise",
    "conv_depthwise_rows",
    "conv_columns",
    "conv_taps",
    "conv_strips",
    "conv_sparse",
    "linear_dense",
    "linear_sparse",
    "conv_blocks",
    "conv_rows",
    "columns_codes",
    "conv_stem",
    "conv_quads",
    "depthwise_codes",
    "linear_codes",
    "linear_blocks",
)

KERNELS: tuple[Kernel[Any, Any], ...] = tuple(import_module(f"{__package__}.{name}").KERNEL for name in MODULES)
