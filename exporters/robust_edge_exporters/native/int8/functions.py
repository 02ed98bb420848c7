"""What operators with tables compute, in floats: a table holds it for each of the 256 codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.int8.arithmetic import Floats
from robust_edge_exporters.native.operators.gelu import Erf, Gelu, GeluTanh
from robust_edge_exporters.native.operators.silu import Silu
from robust_edge_exporters.native.operators.softplus import Mish, Softplus
from robust_edge_exporters.native.operators.tanh import Tanh

_erf = np.vectorize(math.erf, otypes=[np.float64])
FUNCTIONS: dict[type[ir.Op], Callable[[Floats], Floats]] = {
    Silu: lambda x: x / (1 + np.exp(-x)),
    Gelu: lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    GeluTanh: lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    Erf: _erf,
    Softplus: lambda x: np.logaddexp(x, 0),
    Mish: lambda x: x * np.tanh(np.logaddexp(x, 0)),
    Tanh: np.tanh,
}


def function_of(act: ir.Activation) -> Callable[[Floats], Floats]:
    """An activation of floats."""
    functions: Mapping[ir.Kind, Callable[[Floats], Floats]] = {
        ir.Kind.LINEAR: lambda x: x,
        ir.Kind.CLAMP: lambda x: np.clip(x, act.lo, act.hi),
        ir.Kind.LEAKY_RELU: lambda x: np.where(x < 0, act.lo * x, x),
        ir.Kind.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
        ir.Kind.HARD_SWISH: lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    }
    return functions[act.kind]
