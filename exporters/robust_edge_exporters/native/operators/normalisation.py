"""Normalisation: what layer and group normalisation share, and the C struct normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import attributes
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.operators.affine import features


@dataclass(frozen=True, kw_only=True)
class Normalisation(ir.Op):
    """(x - mean) / sqrt(variance + epsilon), times scale (C,), plus shift (C,)."""

    scale: ir.Array
    shift: ir.Array
    epsilon: float
    groups: int = 1

    function: ClassVar[str]

    @property
    def constants(self) -> tuple[ir.Array, ...]:
        """The scale and the shift."""
        return self.scale, self.shift

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, with a struct normalisation."""
        source, target = (features(t) if output.flat else t for t in (inputs[0], output))
        fields = {
            "in": source,
            "out": target,
            "groups": self.groups,
            "epsilon": np.float32(self.epsilon),
            "scale": self.scale,
            "shift": self.shift,
            "act": self.act,
        }
        return (ir.Call(self.function, "normalisation", fields),)


def epsilon_of(node: Any) -> float:
    """The attribute epsilon."""
    return float(attributes(node).get("epsilon", 1e-5))
