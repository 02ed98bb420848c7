from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.formats.onnx.wire import has_external_data

onnx = pytest.importorskip("onnx", reason="the models of these tests are written with onnx")
make, arrays = onnx.helper, onnx.numpy_helper


def external(name="w"):
    tensor = arrays.from_array(np.ones((4, 16), np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    return tensor


def subgraph(tensor):
    return make.make_graph([make.make_node("Identity", ["w"], ["y"])], "sub", [], [], [tensor])


def in_initializer(model):
    model.graph.initializer.append(external())


def in_sparse_initializer(model):
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=external(), indices=arrays.from_array(np.arange(64)), dims=[4, 16])
    )


def in_constant(model):
    model.graph.node.append(make.make_node("Constant", [], ["c"], value=external()))


def in_list_of_tensors(model):
    attribute = make.make_attribute("many", [arrays.from_array(np.ones(2)), external()])
    node = make.make_node("Custom", [], ["c"])
    node.attribute.append(attribute)
    model.graph.node.append(node)


def in_branch(model):
    clean = subgraph(arrays.from_array(np.ones(2), "w"))
    model.graph.node.append(make.make_node("If", ["c"], ["y"], then_branch=clean, else_branch=subgraph(external())))


def in_list_of_graphs(model):
    node = make.make_node("Custom", [], ["c"])
    node.attribute.append(make.make_attribute("many", [subgraph(external())]))
    model.graph.node.append(node)


def in_list_of_sparse_tensors(model):
    sparse = onnx.SparseTensorProto(values=arrays.from_array(np.ones(64)), indices=external(), dims=[4, 16])
    node = make.make_node("Custom", [], ["c"])
    node.attribute.append(onnx.AttributeProto(name="many", sparse_tensors=[sparse]))
    node.attribute.append(onnx.AttributeProto(name="one", sparse_tensor=sparse))
    model.graph.node.append(node)


def in_default_of_a_function(model):
    function = make.make_function("local", "F", [], ["c"], [], [make.make_opsetid("", 18)])
    function.attribute_proto.append(make.make_attribute("value", external()))
    model.functions.append(function)


def in_function(model):
    body = [make.make_node("Constant", [], ["c"], value=external())]
    model.functions.append(make.make_function("local", "F", [], ["c"], body, [make.make_opsetid("", 18)]))


def in_training(model):
    model.training_info.add().algorithm.CopyFrom(subgraph(external()))


def location_only(model):
    tensor = external()
    tensor.ClearField("external_data")
    model.graph.initializer.append(tensor)


def names_only(model):
    tensor = external()
    tensor.data_location = onnx.TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


HIDINGS = (
    in_initializer,
    in_sparse_initializer,
    in_constant,
    in_list_of_tensors,
    in_branch,
    in_list_of_graphs,
    in_list_of_sparse_tensors,
    in_default_of_a_function,
    in_function,
    in_training,
    location_only,
    names_only,
)


@pytest.mark.parametrize("hide", HIDINGS)
def test_another_file_is_found_wherever_it_is_named(linear, tmp_path, hide):
    model = linear.program()
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert not has_external_data(path)
    hide(model)
    path.write_bytes(model.SerializeToString())
    assert has_external_data(path)


def test_harmless_models_pass_whatever_their_names_and_numbers(linear, tmp_path):
    model = linear.program(inputs="location", outputs="external_data")
    model.doc_string = "location: elsewhere.bin"
    tensor = arrays.from_array(np.frombuffer(external().SerializeToString(), np.uint8), "bytes")
    tensor.data_location = onnx.TensorProto.DEFAULT
    model.graph.initializer.append(tensor)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert not has_external_data(path)


@pytest.mark.parametrize("spelling", [b"\x3a", b"\xba\x00", b"\xba\x80\x80\x00"])
def test_longer_spellings_of_a_number_hide_nothing(tmp_path, spelling):
    graph = onnx.GraphProto(name="g", initializer=[external()]).SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + spelling + bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7]) + graph)
    assert onnx.load(str(path), load_external_data=False).graph.name == "g"
    assert has_external_data(path)


def test_what_is_no_protocol_buffer_is_an_error(linear, tmp_path):
    path = tmp_path / "m.onnx"
    whole = linear.program().SerializeToString()
    for blob in (b"", b"\xff" * 20, b"\x3a", b"\x3a\x7f", b"\x3b", whole[:-1], whole + b"\x0a", b"\x0d\x00"):
        path.write_bytes(blob)
        with pytest.raises(ValueError):
            has_external_data(path)
