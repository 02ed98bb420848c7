from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from robust_edge_exporters.formats.onnx.differences import onnx_differences
from tests.attacks.hidden import UNKNOWN, long_name, overridden


def program(*, swapped=False, name="y"):
    """Two additions of one shape; swapped, each takes the other's constant."""
    first, second = ("b", "a") if swapped else ("a", "b")
    nodes = [
        helper.make_node("Add", ["images", first], [name], name="one"),
        helper.make_node("Sub", [name, second], ["logits"], name="two"),
    ]
    ports = [helper.make_tensor_value_info(port, onnx.TensorProto.FLOAT, [None, 2]) for port in ("images", "logits")]
    constants = [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in (("a", [1, 2]), ("b", [3, 4]))]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture
def compared(tmp_path):
    def compare(theirs, ours=None):
        for folder, item in (("built", ours or program()), ("shipped", theirs)):
            (tmp_path / folder).mkdir()
            data = item if isinstance(item, bytes) else item.SerializeToString()
            (tmp_path / folder / "model.onnx").write_bytes(data)
        return onnx_differences(tmp_path / "built/model.onnx", tmp_path / "shipped/model.onnx")

    return compare


def test_the_version_that_wrote_it_and_names_of_values_may_differ(compared):
    other = program(name="another")
    other.producer_version = "9.0+cpu"
    assert compared(other) == []


def test_what_an_operator_takes_is_compared(compared):
    lines = compared(program(swapped=True))
    assert len(lines) == 2
    assert all("values differ" in line for line in lines)


def test_a_field_that_a_later_one_overrides(compared):
    """Protobuf merges the fields of a message that is given twice."""
    hidden = overridden(program().SerializeToString())
    assert onnx.load_from_string(hidden) == program()
    assert compared(hidden) == ["model.onnx: it holds bytes that belong to none of its parts"]


def with_texts(count=1, hidden=b""):
    """A node with one allowed text, `count` times, the first of which has an unknown field."""
    found = program()
    found.graph.node[0].metadata_props.extend([onnx.StringStringEntryProto(key="k", value="allowed")] * count)
    for item in found.graph.node[0].metadata_props[:1]:
        item.MergeFromString(hidden)
    return found


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (with_texts(), ""),
        (with_texts(hidden=bytes([0xFA, 0x7F, 100]) + b"s" * 100), "belong to none of its parts"),
        (with_texts(1000), "a text that no export writes: 'k: allowed'"),
        (with_texts(0), "a text that no export writes: 'fewer than the export'"),
    ],
    ids=["equal", "unknown field", "repeated", "missing"],
)
def test_texts_hold_nothing_more(theirs, words, compared):
    lines = compared(theirs, with_texts())
    assert len(lines) == bool(words)
    assert all(words in line for line in lines)


def test_an_export_that_is_written_in_another_way_shows_no_hidden_bytes(compared):
    """The check would find them in every honest file, and is not left out in silence."""
    ours = program().SerializeToString()
    (line,) = compared(program(name="z"), ours + b"\x12\x00")
    assert "hidden bytes cannot be found" in line


def test_a_shape_that_is_given_twice(compared):
    ours, theirs = program(), program()
    for item, count in ((ours, 1), (theirs, 2)):
        shape = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2])
        item.graph.value_info.extend([shape] * count)
    (line,) = compared(theirs, ours)
    assert "inner value 'y'" in line


def changed(edit):
    theirs = program()
    edit(theirs)
    return theirs


def stored_otherwise(theirs):
    item = theirs.graph.initializer[0]
    item.float_data.extend(numpy_helper.to_array(item).tolist())
    item.ClearField("raw_data")


def elsewhere(theirs):
    item = theirs.graph.initializer[0]
    item.ClearField("raw_data")
    item.data_location = onnx.TensorProto.EXTERNAL
    item.external_data.add(key="location", value="other.bin")


def with_function(theirs):
    theirs.functions.add(name="Add", domain="evil")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda p: p.graph.node[0].input.__setitem__(0, "b"), "input 'b' is another value"),
        (lambda p: p.graph.node[0].input.append("b"), "3 inputs instead of 2"),
        (
            lambda p: p.graph.node[0].attribute.append(helper.make_attribute("axis", 1)),
            "attribute axis is 1 instead of",
        ),
        (lambda p: setattr(p.graph.node[0], "domain", "evil"), "is not in the export"),
        (lambda p: p.graph.initializer.append(numpy_helper.from_array(np.ones(1), "c")), "'c' is not in the export"),
        (lambda p: p.graph.initializer.pop(), "'b' of the export is missing"),
        (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "two initializers have one name"),
        (lambda p: setattr(p.graph.output[0], "name", "other"), "the outputs are ['other']"),
        (stored_otherwise, "is stored in another way"),
        (elsewhere, "lie in another file"),
        (with_function, "parts that no export writes"),
        (lambda p: setattr(p, "ir_version", 9), "IR version"),
        (lambda p: setattr(p, "producer_name", "tf2onnx"), "'tf2onnx' wrote it"),
        (lambda p: setattr(p, "producer_version", "9" * 1000), "no export chooses"),
        (lambda p: setattr(p.graph.node[0], "name", "\x1b[2J"), "no export chooses"),
        (lambda p: setattr(p.graph.node[0], "name", "n" * 299), "characters together"),
        (long_name, "no export chooses"),
        (lambda p: long_name(p, "a\nPASS\n"), "no export chooses"),
        (lambda p: p.graph.value_info.add(name="\x1b[2J"), "no export chooses"),
        (lambda p: setattr(p.graph.input[0], "name", "p" * 100_000), "the inputs are ["),
        (lambda p: p.graph.node[0].attribute.add(name="a" * 100_000), "attribute aaa"),
        (lambda p: setattr(p.graph.node[0], "op_type", "o" * 100_000), "is not in the export"),
    ],
)
def test_every_part_is_compared(edit, words, compared):
    lines = compared(changed(edit))
    assert any(words in line for line in lines), lines
    assert all(line.startswith("model.onnx: ") and len(line) < 500 for line in lines)


def test_bytes_that_are_no_onnx(compared):
    (line,) = compared(b"\xff\xff\xff")
    assert "cannot be read as ONNX" in line


def quantised(*, activation=0.5, weight=0.25, product=0.125, bias=1000):
    """An activation and a weight in 8 bits, and a bias in units of both scales."""
    values = {
        "x_scale": np.float32(activation), "w": np.array([1, -2], np.int8), "w_scale": np.float32(weight),
        "b": np.array([bias, 0], np.int32), "b_scale": np.float32(product),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "x_scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "x_scale"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale"], ["v"]),
        helper.make_node("DequantizeLinear", ["b", "b_scale"], ["c"]),
        helper.make_node("Mul", ["x", "v"], ["y"]),
        helper.make_node("Add", ["y", "c"], ["logits"]),
    ]
    ports = [helper.make_tensor_value_info(port, onnx.TensorProto.FLOAT, [None, 2]) for port in ("images", "logits")]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"activation": 0.5 * (1 + 8e-6), "product": 0.125 * (1 - 8e-6), "bias": 1001}, ""),
        ({"activation": 0.5 * (1 + 2e-5)}, "x_scale"),
        ({"product": 0.125 * (1 - 2e-5)}, "b_scale"),
        ({"bias": 1002}, "'b'"),
        ({"weight": 0.25 * (1 + 1e-6)}, "w_scale"),
    ],
)
def test_calibrated_values_may_round_and_weights_may_not(changes, differs, compared):
    lines = compared(quantised(**changes), quantised())
    assert len(lines) == bool(differs)
    assert all(differs in line for line in lines)


@pytest.mark.parametrize(
    "hide",
    [
        lambda item: item.string_data.append(b"secret"),
        lambda item: item.float_data.extend([1.0] * 9),
        lambda item: item.MergeFromString(UNKNOWN),
    ],
)
def test_a_calibrated_scale_holds_nothing_but_its_value(hide, compared):
    theirs = quantised(activation=0.5 * (1 + 8e-6))
    hide(theirs.graph.initializer[0])
    (line,) = compared(theirs, quantised())
    assert "x_scale" in line


def test_a_shape_holds_nothing_but_its_type(compared):
    ours, theirs = program(), program()
    for item in (ours, theirs):
        item.graph.value_info.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2]))
    theirs.graph.value_info[0].MergeFromString(UNKNOWN)
    (line,) = compared(theirs, ours)
    assert "inner value 'y'" in line


@pytest.mark.parametrize(("product", "differs"), [(1, False), (1 + 5e-6, True)])
def test_the_scale_of_a_bias_is_the_product_of_two_others(product, differs, compared):
    """It may follow the activation's on another machine, and has no freedom of its own."""

    def layer(activation, product):
        found = quantised(activation=activation, product=np.float32(activation) * np.float32(0.25) * product)
        del found.graph.node[4:]
        found.graph.node.append(helper.make_node("Gemm", ["x", "v", "c"], ["logits"]))
        return found

    lines = compared(layer(0.5 * (1 + 4e-6), product), layer(0.5, 1))
    assert len(lines) == differs
    assert all("'b_scale' is not the product" in line for line in lines)
