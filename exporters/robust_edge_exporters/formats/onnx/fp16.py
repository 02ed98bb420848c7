"""fp16: weights and arithmetic in 16 bits, images and logits still float32."""

from __future__ import annotations

from typing import Any

import onnx


def halved(program: Any) -> Any:
    """The program with fp16 weights, a cast after its input and one before its output.

    Zeros stay zeros; a weight too small for fp16 becomes the smallest fp16 number, not zero.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    written = convert_float_to_float16(program, keep_io_types=True)
    images = [port.name for port in written.graph.input]  # its casts are appended, and have to come first
    nodes = sorted(written.graph.node, key=lambda node: not (node.op_type == "Cast" and node.input[0] in images))
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    del written.graph.value_info[:]  # of the fp32 program, where they are stale
    return onnx.shape_inference.infer_shapes(written)
