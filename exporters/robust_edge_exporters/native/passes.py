"""Passes over the graph: fold constants into weights, fuse operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.operators.activate import Activate
from robust_edge_exporters.native.operators.add import Add
from robust_edge_exporters.native.operators.affine import Affine
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.operators.gelu import Erf, Gelu
from robust_edge_exporters.native.operators.mul import Mul
from robust_edge_exporters.native.operators.normalisation import Normalisation
from robust_edge_exporters.native.operators.silu import Silu
from robust_edge_runtimes.core.errors import ExportError


def optimise(graph: ir.Graph, fuse: Callable[[ir.Graph], ir.Graph] | None = None) -> ir.Graph:
    """Apply all passes in order, each repeatedly until it changes nothing.

    Args:
        graph: as imported.
        fuse: the pass that fuses activations, by default `fuse_activations`.
    """
    graph, fuse = drop_dead(graph), fuse or fuse_activations
    for step in (merge_affines, fuse_gates, fuse_gelu, fold_affines, fuse, fuse_residuals, fuse):
        while (changed := step(graph)) is not graph:
            graph = changed
    return graph


def only_reader(graph: ir.Graph, name: str) -> ir.Op | None:
    """The operator that reads tensor `name`, if it is the only reader; otherwise None."""
    readers = graph.readers.get(name, [])
    return graph.ops[readers[0]] if len(readers) == 1 and readers[0] >= 0 else None


def substitute(graph: ir.Graph, changes: dict[str, ir.Op | None]) -> ir.Graph:
    """Replace the operators that write the given tensors, by name; None removes the operator."""
    ops = [changes.get(op.output, op) for op in graph.ops]
    return graph.with_ops([op for op in ops if op is not None])


def drop_dead(graph: ir.Graph) -> ir.Graph:
    """Remove operators whose output is not read."""
    alive, kept = {graph.output}, []
    for op in reversed(graph.ops):
        if op.output in alive:
            alive.update(op.reads)
            kept.append(op)
    return graph.with_ops(kept[::-1])


def merge_affines(graph: ir.Graph) -> ir.Graph:
    """Merge two consecutive affine functions into one, as in (x - mean) / std."""
    for op in graph.ops:
        after = only_reader(graph, op.output)
        if isinstance(op, Affine) and isinstance(after, Affine):
            merged = replace(
                after, inputs=op.inputs, scale=op.scale * after.scale, shift=op.shift * after.scale + after.shift
            )
            return substitute(graph, {op.output: None, after.output: merged})
    return graph


def fuse_gates(graph: ir.Graph) -> ir.Graph:
    """Fuse x * sigmoid(x) into Silu."""
    for op in graph.ops:
        after = only_reader(graph, op.output)
        gate = isinstance(op, Activate) and op.act.kind is ir.Kind.SIGMOID
        if gate and isinstance(after, Mul) and set(after.inputs) == {op.output, op.inputs[0]}:
            return substitute(graph, {op.output: None, after.output: Silu(after.name, op.inputs, after.output)})
    return graph


def fuse_gelu(graph: ir.Graph) -> ir.Graph:
    """Fuse x * (1 + erf(x / sqrt(2))) / 2, whichever factor is halved, into Gelu."""
    written = {op.output: op for op in graph.ops}
    for erf in graph.ops:
        before, plus_one = written.get(erf.inputs[0]) if erf.inputs else None, only_reader(graph, erf.output)
        if not (isinstance(erf, Erf) and isinstance(before, Affine) and isinstance(plus_one, Affine)):
            continue
        product, source = only_reader(graph, plus_one.output), before.inputs[0]
        half = plus_one.scale[0] == 0.5
        last = product if half else only_reader(graph, product.output) if product else None
        fits = (
            isinstance(product, Mul)
            and set(product.inputs) == {source, plus_one.output}
            and only_reader(graph, before.output) is erf
            and is_affine(before, 2**-0.5, 0)
            and is_affine(plus_one, *(0.5, 0.5) if half else (1, 1))
            and (half or is_affine(last, 0.5, 0))
        )
        if fits:
            assert last is not None
            unused = dict.fromkeys(op.output for op in (before, erf, plus_one, product) if op)
            return substitute(graph, {**unused, last.output: Gelu(last.name, (source,), last.output)})
    return graph


def is_affine(op: ir.Op | None, scale: float, shift: float) -> bool:
    """Whether `op` is scale * x + shift in all channels."""
    return (
        isinstance(op, Affine) and np.allclose(op.scale, scale, rtol=1e-6) and np.allclose(op.shift, shift, rtol=1e-6)
    )


def fold_affines(graph: ir.Graph) -> ir.Graph:
    """Fold an affine function, such as batch normalisation, into the weights or the normalisation before it."""
    for op in graph.ops:
        after = only_reader(graph, op.output)
        if isinstance(op, Normalisation) and isinstance(after, Affine):
            scaled = replace(
                op, output=after.output, scale=op.scale * after.scale, shift=op.shift * after.scale + after.shift
            )
            return substitute(graph, {op.output: scaled, after.output: None})
        if isinstance(op, ir.Weighted) and isinstance(after, Affine):
            scale = after.scale.reshape((-1,) + (1,) * (op.weight.ndim - 1))
            folded = replace(
                op,
                output=after.output,
                weight=np.ascontiguousarray(op.weight * scale),
                bias=op.bias * after.scale + after.shift,
            )
            return substitute(graph, {op.output: folded, after.output: None})
    return graph


def fuse_activations(graph: ir.Graph) -> ir.Graph:
    """Fuse an activation into the operator before it, if that has none."""
    for op in graph.ops:
        after = only_reader(graph, op.output)
        if op.fuses_activation and op.act == ir.NONE and isinstance(after, Activate | Silu):
            act = ir.Activation(ir.Kind.SILU) if isinstance(after, Silu) else after.act
            fused = replace(op, output=after.output, act=act)
            return substitute(graph, {op.output: fused, after.output: None})
    return graph


def fuse_residuals(graph: ir.Graph) -> ir.Graph:
    """Fuse the addition of a tensor to the output of a convolution into that convolution, if it is computed earlier."""
    written = {op.output: index for index, op in enumerate(graph.ops)}
    written[graph.input] = -1
    for op in graph.ops:
        if not isinstance(op, Add) or graph.shapes[op.inputs[0]] != graph.shapes[op.inputs[1]]:
            continue
        late, early = sorted(op.inputs, key=lambda name: -written[name])
        conv = graph.ops[written[late]] if written[late] >= 0 else None
        fits = isinstance(conv, Conv) and conv.act == ir.NONE and conv.residual is None
        if fits and late != early and only_reader(graph, late) is op:
            assert isinstance(conv, Conv)
            fused = replace(conv, output=op.output, residual=early, act=op.act)
            return substitute(graph, {late: fused, op.output: None})
    return graph


def checked(graph: ir.Graph) -> ir.Graph:
    """Return the graph after a check of its constants.

    Raises:
        ExportError: a bias, a scale or a shift is NaN or infinite.
    """
    for op in graph.ops:
        if not all(np.isfinite(constant).all() for constant in op.constants):
            raise ExportError(f"'{op.name}' has a bias, a scale or a shift that is not finite; train it again")
    return graph


def rounded(graph: ir.Graph, value_type: type[np.floating[Any]]) -> ir.Graph:
    """Round the weights to `value_type`, so that counts and plans use the stored values.

    A weight that rounds to zero is not stored.

    Raises:
        ExportError: a weight is too large for the type.
    """
    changes: dict[str, ir.Op | None] = {}
    for op in graph.ops:
        if isinstance(op, ir.Weighted) and op.weight.size:
            largest, limit = float(np.abs(op.weight).max()), float(np.finfo(value_type).max)
            if not largest <= limit:
                raise ExportError(
                    f"weight '{op.name}' has the value {largest:.4g}, above the largest {np.dtype(value_type)}, "
                    f"{limit:.4g}; use fp32"
                )
            changes[op.output] = replace(op, weight=op.weight.astype(value_type).astype(np.float32))
    return substitute(graph, changes)
