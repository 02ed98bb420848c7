"""The parts of an 8-bit program that stay in fp32, without Quantize/Dequantize pairs inside.

ONNX Runtime has no 8-bit kernel for a normalisation, for Erf and for other functions: around them a pair of Quantize
and Dequantize only rounds. A sum or a product of what they compute (GELU, a layer norm that an older opset spells out)
is left in fp32 with them. The logits are not rounded either: the last matrix product gives floats.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

NORMALISATIONS = {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
ELEMENTWISE = {"Add", "Mul"}
WRITES_FLOATS = {"Gemm", "MatMul"}
"""Operators whose 8-bit kernels can give floats."""


def nodes_in_float(program: Any, quantisable: Collection[str], excluded: Collection[str]) -> set[str]:
    """Names of the nodes that stay in fp32.

    Args:
        program: fp32, every node named, in topological order.
        quantisable: types of operators that ONNX Runtime's quantiser handles.
        excluded: names of nodes that stay in fp32 by themselves.
    """
    found, computed_by = set(), {}
    for node in program.graph.node:
        computed_by.update(dict.fromkeys(node.output, node))
        unknown = node.op_type not in quantisable or node.op_type in NORMALISATIONS or _is_grouped_transposed(node)
        follows = node.op_type in ELEMENTWISE and any(
            computed_by[name].name in found and _is_function(computed_by[name], quantisable)
            for name in node.input
            if name in computed_by
        )
        if unknown or follows or node.name in excluded:
            found.add(node.name)
    return found


def _is_grouped_transposed(node: Any) -> bool:
    """Whether ONNX Runtime's quantiser would count its output channels wrongly: they lie in every group anew."""
    return node.op_type == "ConvTranspose" and any(item.name == "group" and item.i > 1 for item in node.attribute)


def _is_function(node: Any, quantisable: Collection[str]) -> bool:
    """Whether a node that stays in fp32 does so for its own type, and is not a layer that was excluded."""
    return node.op_type not in quantisable or node.op_type in NORMALISATIONS | ELEMENTWISE


def keep_islands_in_float(program: Any, in_float: Collection[str]) -> None:
    """Remove each pair of Quantize and Dequantize that only nodes in fp32 read, where its source can give floats."""
    graph = program.graph
    makers = {name: node for node in graph.node for name in node.output}
    ends = {port.name for port in graph.output}
    for restore in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        rounded = makers.get(restore.input[0])
        source = None if rounded is None else makers.get(rounded.input[0])
        if rounded is None or rounded.op_type != "QuantizeLinear" or source is None:
            continue
        readers = [node for node in graph.node if restore.output[0] in node.input]
        only_float = all(node.name in in_float for node in readers) and (readers or restore.output[0] in ends)
        if only_float and (source.op_type in WRITES_FLOATS or source.name in in_float):
            _bypass(graph, source, rounded, restore, ends)
    _drop_unused_constants(graph)


def _bypass(graph: Any, source: Any, rounded: Any, restore: Any, ends: Collection[str]) -> None:
    """Let the readers of a pair read its source; the name of an output of the program stays."""
    old, new = restore.output[0], rounded.input[0]
    others = [node for node in graph.node if new in node.input and node is not rounded]
    graph.node.remove(restore)
    if old in ends:
        source.output[:] = [old if name == new else name for name in source.output]
        for node in (*others, *([rounded] if _is_read(graph, rounded) else [])):
            node.input[:] = [old if name == new else name for name in node.input]
    else:
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
    if not _is_read(graph, rounded):
        graph.node.remove(rounded)


def _is_read(graph: Any, node: Any) -> bool:
    return any(node.output[0] in other.input for other in graph.node)


def _drop_unused_constants(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input} | {port.name for port in graph.output}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
