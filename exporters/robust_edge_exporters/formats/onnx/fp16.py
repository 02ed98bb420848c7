"""Conversion to fp16: weights and arithmetic have 16 bits; images and logits stay float32."""

from __future__ import annotations

from typing import Any

import onnx


def to_fp16(program: Any) -> Any:
    """Convert the weights of a program to fp16, and add a cast after its input and one before its output.

    Zeros stay zeros; a weight too small for fp16 becomes the smallest fp16 number, not zero.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    written = convert_float_to_float16(program, keep_io_types=True)
    images = [
        port.name for port in written.graph.input
    ]  # the converter appends the casts of the inputs; ONNX wants nodes in topological order
    nodes = sorted(written.graph.node, key=lambda node: not (node.op_type == "Cast" and node.input[0] in images))
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    del written.graph.value_info[:]  # the types of the fp32 program, which no longer hold
    return onnx.shape_inference.infer_shapes(written)
