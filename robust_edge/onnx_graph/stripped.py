"""A graph without the values of its weights."""

from __future__ import annotations

from typing import Any

from robust_edge.onnx_graph.folding import WEIGHTS_AS_INPUTS, Folded
from robust_edge.onnx_graph.weights import is_batch_norm, trained_names


def stripped(program: Any, graph: Folded) -> Any:
    """The nodes that depend on the image; weights and batch-norm statistics become inputs after the images.

    Args:
        program: where the graph was read from.
        graph: what `folded` gives of it.
    """
    from onnx import TensorProto, helper, numpy_helper

    norms = [step.node.inputs[1:] for step in graph.steps if is_batch_norm(step.node, graph)]
    weights = list(dict.fromkeys([*trained_names(graph), *(name for names in norms for name in names)]))
    images = next(port for port in program.graph.input if port.name == graph.input)
    made = helper.make_graph(
        [step.proto for step in graph.steps],
        "network",
        [
            images,
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, graph.constants[name].shape) for name in weights),
        ],
        [port for port in program.graph.output if port.name == graph.output],
        [
            numpy_helper.from_array(value.numpy(), name)
            for name, value in graph.constants.items()
            if name not in weights
        ],
    )
    written = helper.make_model(made, opset_imports=program.opset_import, ir_version=program.ir_version)
    helper.set_model_props(written, {WEIGHTS_AS_INPUTS: ""})
    return written
