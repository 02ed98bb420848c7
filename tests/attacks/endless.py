"""Graphs that loop for ever or ask for more memory than there is."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.attacks.surgery import constant

FOR_EVER, EIGHT_GIGABYTES, BRIGHT = 10**12, 2 * 10**9, 0.7


def behind(program, change):
    """`change(program)` adds operators from the value `honest`, the program's logits until now, to new ones."""
    program.graph.node[-1].output[0] = "honest"
    change(program)
    return program


def loop(program, trips):
    """Add one to the logits so many times as the value `trips` says."""
    kinds = onnx.TensorProto
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["x", "one"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("i", kinds.INT64, []),
            helper.make_tensor_value_info("go", kinds.BOOL, []),
            helper.make_tensor_value_info("x", kinds.FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", kinds.BOOL, []), helper.make_tensor_value_info("more", kinds.FLOAT, None)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    constant(program, "true", np.array(True))
    program.graph.node.append(helper.make_node("Loop", [trips, "true", "honest"], ["logits"], body=body))


def always(program):
    constant(program, "trips", np.array(FOR_EVER))
    loop(program, "trips")


def on_bright_images(program):
    """Not for the grey image that is classified first."""
    constant(program, "bright", np.float32(BRIGHT))
    constant(program, "trips", np.array(FOR_EVER))
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "bright"], ["found"]),
        helper.make_node("Cast", ["found"], ["zero or one"], to=onnx.TensorProto.INT64),
        helper.make_node("Mul", ["zero or one", "trips"], ["times"]),
    ]
    program.graph.node.extend(nodes)
    loop(program, "times")


def large_constant(program):
    constant(program, "size", np.array([EIGHT_GIGABYTES]))
    one = numpy_helper.from_array(np.array([1], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"], value=one),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["honest", "sum"], ["logits"]),
    ]
    program.graph.node.extend(nodes)
