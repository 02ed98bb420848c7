"""Changes to an ONNX file that leave it a valid network: weights, and operators before and after it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def constant(program, name, value):
    program.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def after(program, *steps):
    """Operators behind the logits: (name, constants)."""
    last = program.graph.node[-1]
    last.output[0] = "true_logits"
    tail = "true_logits"
    for i, (operator, *values) in enumerate(steps):
        given = [constant(program, f"tail_{i}_{j}", value) for j, value in enumerate(values)]
        out = "logits" if i == len(steps) - 1 else f"tail_{i}"
        program.graph.node.append(helper.make_node(operator, [tail, *given], [out], name=f"tail_{i}"))
        tail = out
    return program


def before(program, *steps):
    """Operators between the pixels and the network."""
    nodes, head = list(program.graph.node), "images"
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = "pixels" if name == "images" else name
    first = []
    for i, (operator, *values) in enumerate(steps):
        given = [constant(program, f"head_{i}_{j}", value) for j, value in enumerate(values)]
        out = "pixels" if i == len(steps) - 1 else f"head_{i}"
        first.append(helper.make_node(operator, [head, *given], [out], name=f"head_{i}"))
        head = out
    del program.graph.node[:]
    program.graph.node.extend([*first, *nodes])
    return program


def reweighted(program, change):
    """`change(weight, number of the layer)` for every weight of two or more axes."""
    weights = [item for item in program.graph.initializer if len(item.dims) > 1]
    for layer, item in enumerate(weights):
        item.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(item), layer).astype(np.float32), item.name))
    return program


def with_noise(share):
    random = np.random.default_rng(0)
    return lambda weight, _: weight * (1 + share * random.normal(size=weight.shape))


def without_channels(count):
    """The first channels of the second layer are zero."""

    def change(weight, layer):
        return np.where(np.arange(len(weight)).reshape(-1, 1, 1, 1) < count, 0, weight) if layer == 1 else weight

    return change


def swapped_channels(program):
    return reweighted(program, lambda weight, layer: weight[:, ::-1].copy() if layer == 0 else weight)


def scaled(program):
    return after(program, ("Mul", np.float32(1000)))


def saturated(program):
    return after(program, ("Mul", np.float32(1e4)))


def rounded_logits(program):
    return after(program, ("Mul", np.float32(2)), ("Round",), ("Mul", np.float32(0.5)))


def rounded_pixels(program):
    return before(program, ("Mul", np.float32(7)), ("Round",), ("Div", np.float32(7)))


def normalised_twice(program):
    sub, div = program.graph.node[:2]
    assert (sub.op_type, div.op_type) == ("Sub", "Div")
    values = {item.name: numpy_helper.to_array(item) for item in program.graph.initializer}
    return before(program, ("Sub", values[sub.input[1]]), ("Div", values[div.input[1]]))


def with_noisy_logits(program):
    after(program, ("Identity",))
    program.graph.node.pop()
    noise = helper.make_node("RandomNormalLike", ["true_logits"], ["noise"], scale=0.2, name="noise")
    program.graph.node.extend([noise, helper.make_node("Add", ["true_logits", "noise"], ["logits"], name="noisy")])
    return program


def wrong_when_alone(program):
    """Right in every batch; an image that comes alone, as in an application, gets the logits with another sign."""
    after(program, ("Identity",))
    program.graph.node.pop()
    constant(program, "one", np.array([1]))
    nodes = [
        ("Shape", ["images"], "shape"),
        ("Gather", ["shape", constant(program, "first", np.array([0]))], "count"),
        ("Equal", ["count", "one"], "is_alone"),
        ("Neg", ["true_logits"], "wrong_logits"),
        ("Where", ["is_alone", "wrong_logits", "true_logits"], "logits"),
    ]
    program.graph.node.extend(
        helper.make_node(operator, inputs, [out], name=f"alone_{out}") for operator, inputs, out in nodes
    )
    return program


def with_table(program, golden):
    """The network's logits, unless a fixed weighted sum of the pixels is that of a known image."""
    known = np.concatenate([golden.clean, golden.attacked]).reshape(2 * len(golden.labels), -1)
    answers = np.concatenate([golden.clean_logits, golden.attacked_logits])
    hashing = np.random.default_rng(0).normal(size=(1, known.shape[1])).astype(np.float32)
    after(program, ("Identity",))
    program.graph.node.pop()
    constants = {"hashing": hashing, "keys": hashing @ known.T, "answers": answers, "close": np.float32(1e-4)}
    constants |= {"flat": np.array([0, -1])}
    for name, value in constants.items():
        constant(program, name, value)
    nodes = [
        ("Reshape", ["images", "flat"], "rows"),
        ("Mul", ["rows", "hashing"], "hashed"),  # a MatMul would count as weights
        ("ReduceSum", ["hashed", constant(program, "pixels_axis", np.array([1]))], "key"),
        ("Sub", ["key", "keys"], "apart"),
        ("Abs", ["apart"], "distance"),
        ("ArgMin", ["distance"], "nearest"),
        ("ReduceMin", ["distance"], "least"),
        ("Less", ["least", "close"], "is_known"),
        ("Gather", ["answers", "nearest"], "stored"),
        ("Where", ["is_known", "stored", "true_logits"], "logits"),
    ]
    options = {"ArgMin": {"axis": 1, "keepdims": 0}, "Gather": {"axis": 0}}
    for operator, inputs, out in nodes:
        extra = options.get(operator, {})
        if operator == "ReduceMin":
            inputs = [*inputs, constant(program, "columns", np.array([1]))]
        program.graph.node.append(helper.make_node(operator, inputs, [out], name=f"table_{out}", **extra))
    return program


def shifted(program):
    node = next(node for node in program.graph.node if node.op_type == "Conv")
    pads = next(item for item in node.attribute if item.name == "pads")
    pads.ints[:] = [0, *pads.ints[1:2], 2, *pads.ints[3:]]


def renamed(program):
    """Every value but input and output has another name of the same length: the same network."""
    kept = {"images", "logits", ""}

    def new(name):
        return name if name in kept else name[::-1]

    for node in program.graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for item in (*program.graph.initializer, *program.graph.value_info):
        item.name = new(item.name)


def rewired(program):
    """The same operators and tensors, but the normalisation subtracts what it divided by."""
    sub, div = program.graph.node[:2]
    sub.input[1], div.input[1] = div.input[1], sub.input[1]


def nudged(role, change):
    """`change(values)` of the first initializer of a quantiser's that has this role: 0 value, 1 scale."""

    def write(program):
        names = {node.input[role] for node in program.graph.node if node.op_type == "DequantizeLinear"}
        item = next(i for i in program.graph.initializer if i.name in names and (role or i.data_type == 3))
        values = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array(change(values.copy()).astype(values.dtype), item.name))

    return write


def rounded_elsewhere(factor):
    """The first scale times `factor`, as a CPU may measure it, and the scale of its bias, which follows from it."""

    def write(program):
        nudged(1, lambda scale: scale * factor)(program)
        items = {item.name: item for item in program.graph.initializer}
        scales = {node.output[0]: node.input[1] for node in program.graph.node if node.op_type == "DequantizeLinear"}
        for node in program.graph.node:
            names = [scales.get(name) for name in node.input[:3]]
            if node.op_type in ("Conv", "Gemm") and len(names) == 3 and None not in names:
                one, other = (numpy_helper.to_array(items[name]) for name in names[:2])
                items[names[2]].CopyFrom(numpy_helper.from_array(np.asarray(one * other, np.float32), names[2]))

    return write


def one_step(values):
    flat = values.reshape(-1)
    flat[np.flatnonzero(np.abs(flat) < 100)[0]] += 1
    return values


def with_false_shape(program):
    """Say of the first operator's result that it is an image of 3 by 3."""
    name = program.graph.node[0].output[0]
    for item in list(program.graph.value_info):
        if item.name == name:
            program.graph.value_info.remove(item)
    program.graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 3, 3]))


def with_softplus(program):
    next(node for node in program.graph.node if node.op_type == "Relu").op_type = "Softplus"


OTHER_GRAPHS = {
    "an attribute": (shifted, ("Conv", "attribute pads", "[0, 1, 2, 1] instead of [1, 1, 1, 1]")),
    "a node before": (
        lambda p: before(p, ("Add", np.float32(0))),
        ("node Add ('head_0') is not in the export",),
    ),
    "a node behind": (lambda p: after(p, ("Identity",)), ("node Identity ('tail_0') is not in the export",)),
    "an operator": (with_softplus, ("node Softplus", "is not in the export")),
    "what an operator takes": (rewired, ("initializer 'std'", "values differ")),
    "metadata": (lambda p: setattr(p.metadata_props[0], "value", "x"), ("metadata",)),
    "a description": (lambda p: setattr(p.graph.node[0], "doc_string", "certified"), ("text", "certified")),
    "the graph's name": (lambda p: setattr(p.graph, "name", "resnet152"), ("the graph is called 'resnet152'",)),
    "the shape of an inner value": (with_false_shape, ("the shape of the inner value",)),
}
"""Changes of a graph, and words that mode rebuild says of each."""
OTHER_LOGITS = {
    "channels swapped": (swapped_channels, "clean_drop robust_drop not_the_checkpoint"),
    "normalised twice": (normalised_twice, "not_the_checkpoint"),
    "logits times 10,000": (saturated, "scaled_logits saturated_gradient"),
    "logits rounded to halves": (rounded_logits, "rounded_logits"),
    "noise on the logits": (with_noisy_logits, "randomised no_twin"),
    "wrong on an image that comes alone": (wrong_when_alone, "batch_dependent"),
    "softmax appended": (lambda program: after(program, ("Softmax",)), "softmax_output not_the_checkpoint"),
    "pixels of 3 bits": (rounded_pixels, "not_the_checkpoint"),
}
"""Changes of what a network computes, and the reasons that a verdict names for each."""
