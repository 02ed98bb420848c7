"""Kernel `dense` of matrix products: all weights are stored, in rows padded to whole units."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, whole_units
from robust_edge_exporters.native.kernel import Family, Kernel, Layer, Options
from robust_edge_exporters.native.operators.linear import Linear
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.weights import Packer, Sections


class LinearKernel(Kernel[Linear, None]):
    """A kernel of matrix products, whose C function has a struct linear as its argument."""

    operator: ClassVar[type[ir.Weighted]] = Linear

    def tile(self, op: Linear, source: Shape, output: Shape, options: Options) -> None:
        """None: matrix products are not tiled."""

    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """One call with a struct linear."""
        op, (source,), output = layer.op, layer.inputs, layer.output
        assert isinstance(op, Linear)
        fields = {
            "in": source.offset,
            "out": output.offset,
            "in_image": source.image,
            "out_image": output.image,
            "inputs": op.weight.shape[1],
            "outputs": op.weight.shape[0],
            "act": op.act,
        }
        program.operator(name, [ir.Call(f"linear_{self.name}", "linear", fields | program.weights(name, sections))])


class LinearDense(LinearKernel):
    """All weights are stored."""

    name = "dense"
    family: ClassVar[Family | None] = "dense"

    def suits(self, op: Linear, source: Shape, output: Shape, options: Options) -> bool:
        """All matrix products."""
        return True

    def cost(self, op: Linear, output: Shape) -> float:
        """Estimated time per row, all weights."""
        return 1.0

    def pack(self, packer: Packer, op: Linear, tiling: None) -> Sections:
        """Rows padded to whole units."""
        outputs, inputs = op.weight.shape
        weight = np.zeros((outputs, whole_units(inputs)), np.float32)
        weight[:, :inputs] = op.weight
        return Sections(packer.values(weight), packer.append(op.bias), None)


KERNEL = LinearDense()
