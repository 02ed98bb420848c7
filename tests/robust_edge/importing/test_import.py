"""Networks that exist already become runs: logits and weights stay, and what is odd in a file is handled or named."""

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx", reason="the files are ONNX")
ort = pytest.importorskip("onnxruntime", reason="the oracle is onnxruntime")

from robust_edge.config.settings import resolve  # noqa: E402
from robust_edge.importing.run import ImportSettings, import_run  # noqa: E402
from robust_edge.run.directory import open_run  # noqa: E402
from robust_edge.run.images import dataset_of  # noqa: E402
from robust_edge_runtimes.core.errors import InputError  # noqa: E402

CONFIG = {"data.limit_train": 60, "data.limit_test": 40, "attack.eps": 0.0}


def network(softmax=True, classes=10):
    """A small network with batch-norm statistics that are not those of initialisation."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)]
    layers += [nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    made = nn.Sequential(*layers, nn.Linear(8, classes), *([nn.Softmax(1)] if softmax else []))
    for _ in range(3):
        made(torch.rand(8, 1, 8, 8))
    return made.eval()


def written(model, path, opset, *, batch="N", size=8, names=("N",)):
    """An ONNX file by torch's older exporter below opset 18, by its newer one from there on."""
    example = torch.rand(1 if batch == 1 else 2, 1, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if opset < 18:
            buffer = io.BytesIO()
            axes = {} if batch == 1 else {0: "N", **({2: "H", 3: "W"} if len(names) > 1 else {})}
            training = torch.onnx.TrainingMode.PRESERVE  # batch-norms are not folded
            torch.onnx.export(
                model, (example,), buffer, dynamo=False, opset_version=opset, input_names=["x"],
                dynamic_axes={"x": axes}, training=training,
            )  # fmt: skip
            path.write_bytes(buffer.getvalue())
        else:
            shapes = None if batch == 1 else ({0: torch.export.Dim.DYNAMIC},)
            program = torch.onnx.export(
                model, (example,), dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
            )
            program.save(str(path))
    return path


def imported(source, folder, **settings):
    config = resolve(flags=CONFIG)
    checkpoint, notes = import_run(source, config, folder, ImportSettings(**settings))
    return open_run(folder), checkpoint, notes


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21])
def test_the_logits_of_an_onnx_file_stay(tmp_path, opset, batch):
    source = network()
    run, checkpoint, notes = imported(written(source, tmp_path / "m.onnx", opset, batch=batch), tmp_path / "run")
    model, images = run.load_model(), dataset_of(run).test.floats(slice(0, 5))
    with torch.no_grad():
        expected = source[:-1](images)
        assert (model(images) - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert any("Softmax" in note for note in notes)
    assert checkpoint.model.arch == "network.onnx"
    assert checkpoint.epoch == 0


@pytest.mark.parametrize("opset", [13, 18])
def test_weights_and_statistics_stay_to_the_bit(tmp_path, opset):
    source = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = tmp_path / "m.onnx"
        if opset < 18:
            written(source, path, opset)
        else:
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            torch.onnx.export(
                source, (torch.rand(2, 1, 8, 8),), dynamo=True, opset_version=opset, optimize=False,
                dynamic_shapes=shapes, verbose=False,
            ).save(str(path))  # fmt: skip
    run, checkpoint, _ = imported(path, tmp_path / "run")
    found = run.load_model().network.state_dict()
    for name, tensor in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(found[name], tensor), name
    assert {layer.name for layer in checkpoint.sparsity.layers} == {
        "network.0.weight", "network.5.weight", "network.10.weight"
    }  # fmt: skip


def test_a_file_that_leaves_height_and_width_open_takes_those_of_the_images(tmp_path):
    source = network()
    path = written(source, tmp_path / "m.onnx", 13, size=16, names=("N", "H", "W"))
    _, checkpoint, _ = imported(path, tmp_path / "run")
    assert checkpoint.model.shape == (1, 8, 8)


def test_normalisation_and_classes_are_the_users(tmp_path):
    source = network()
    names = tuple(["7", "2", "9", "4", "0", "1", "3", "5", "6", "8", "ten"])
    model = network(classes=11)
    path = written(model, tmp_path / "m.onnx", 17)
    run, _, _ = imported(path, tmp_path / "run", mean=(0.3,), std=(0.7,), classes=names)
    images, dataset = torch.rand(3, 1, 8, 8), dataset_of(run)
    with torch.no_grad():
        expected = model[:-1]((images - 0.3) / 0.7)
        assert torch.allclose(run.load_model()(images), expected, atol=1e-6)
    assert dataset.classes == names
    plain = dataset.origin
    assert [names[label] for label in dataset.test.labels] == [plain.classes[label] for label in plain.test.labels]
    assert not torch.equal(dataset.test.labels, plain.test.labels)
    assert source is not model


def test_a_state_dict_needs_its_architecture(tmp_path):
    from robust_edge.models.small_cnn import small_cnn

    source = small_cnn(10, 1).eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="in `arch`"):
        imported(tmp_path / "w.pth", tmp_path / "run")
    run, checkpoint, _ = imported(tmp_path / "w.pth", tmp_path / "run", arch="small_cnn")
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(run.load_model()(images), source(images))
    assert checkpoint.sparsity.keep == 1


def model_of(nodes, shape=("N", 1, 8, 8), opset=13, initializers=()):
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    ports = [make.make_tensor_value_info("x", kind, shape), make.make_tensor_value_info("y", kind, None)]
    graph = make.make_graph(nodes, "g", ports[:1], ports[1:], list(initializers))
    return make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=7)


def test_equal_tensors_that_are_stored_once_become_parameters_of_their_own(tmp_path):
    """As torch's older exporter does with the biases of several layers."""
    make, random = onnx.helper, np.random.default_rng(0)
    values = {"w": (3, 1, 3, 3), "v": (3, 3, 3, 3), "b": (3,), "g": (3, 10)}
    stored = [
        onnx.numpy_helper.from_array(random.normal(size=s).astype(np.float32), name) for name, s in values.items()
    ]
    nodes = [("Identity", ["b"], "c"), ("Conv", ["x", "w", "b"], "d"), ("Conv", ["d", "v", "c"], "e")]
    nodes += [("GlobalAveragePool", ["e"], "f"), ("Flatten", ["f"], "h"), ("MatMul", ["h", "g"], "y")]
    program = model_of([make.make_node(kind, given, [out]) for kind, given, out in nodes], initializers=stored)
    onnx.save(program, tmp_path / "m.onnx")
    run, _, _ = imported(tmp_path / "m.onnx", tmp_path / "run")
    state = run.load_model().network.state_dict()
    assert torch.equal(state["b"], state["c"])
    assert state["b"].data_ptr() != state["c"].data_ptr()


def head(source):
    """Nodes and initializers of a classifier of `source`, (N, 4, H, W)."""
    random, array = np.random.default_rng(0), onnx.numpy_helper.from_array
    nodes = [("GlobalAveragePool", [source], "p"), ("Flatten", ["p"], "f"), ("MatMul", ["f", "w"], "y")]
    held = {"w": (4, 10), "k": (4, 1, 3, 3)}
    return nodes, [array(random.normal(size=s).astype(np.float32), name) for name, s in held.items()]


def logits_of_file(path, images):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": images.numpy()})[0])


@pytest.mark.parametrize("size", [1, 2])
def test_a_branch_that_shapes_decide_is_taken(tmp_path, size):
    """As torch's older exporter writes squeeze(); the value that a branch reads is no shape."""
    make, ends, array = onnx.helper, onnx.helper.make_tensor_value_info, onnx.numpy_helper.from_array
    nodes, held = head("chosen")
    branches = {
        f"{name}_branch": make.make_graph(
            [make.make_node("Mul", ["h", name], [f"{name}_y"])], name, [], [ends(f"{name}_y", 1, None)]
        )
        for name in ("then", "else")
    }
    first = [
        ("Conv", ["x", "k"], "h"),
        ("Shape", ["x"], "s"),
        ("Gather", ["s", "one"], "c"),
        ("Equal", ["c", "size"], "q"),
    ]
    made = [make.make_node(kind, given, [out]) for kind, given, out in first]
    made += [make.make_node("If", ["q"], ["chosen"], **branches)]
    made += [make.make_node(kind, given, [out]) for kind, given, out in nodes]
    held += [
        array(np.float32(2), "then"),
        array(np.float32(3), "else"),
        array(np.array(1), "one"),
        array(np.array(size), "size"),
    ]
    onnx.save(model_of(made, initializers=held), tmp_path / "m.onnx")
    run, _, _ = imported(tmp_path / "m.onnx", tmp_path / "run")
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(run.load_model().network(images), logits_of_file(tmp_path / "m.onnx", images), atol=1e-6)


@pytest.mark.parametrize("shape", [("N", 8, 8, 1), ("N", "h", "w", 1)])
def test_images_with_the_channels_last(tmp_path, shape):
    """As TensorFlow's are, with and without a layer that reads them so."""
    make = onnx.helper
    nodes, held = head("h")
    made = [
        make.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        make.make_node("ReduceMax", ["x"], ["m"], axes=[1, 2, 3]),
    ]
    made += [make.make_node("Mul", ["t", "m"], ["u"]), make.make_node("Conv", ["u", "k"], ["h"])]
    made += [make.make_node(kind, given, [out]) for kind, given, out in nodes]
    onnx.save(model_of(made, shape, initializers=held), tmp_path / "m.onnx")
    run, _, notes = imported(tmp_path / "m.onnx", tmp_path / "run")
    images = torch.rand(3, 1, 8, 8)
    expected = logits_of_file(tmp_path / "m.onnx", images.permute(0, 2, 3, 1))
    assert torch.allclose(run.load_model().network(images), expected, atol=1e-6)
    assert any("(N, H, W, C)" in note for note in notes)


class Repeating(nn.Module):
    """Constants that are repeated for every image, and sizes that hold the number of images."""

    def __init__(self):
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.rand(1, 1, 8)), nn.GRU(8, 8)
        self.norm, self.head = nn.LocalResponseNorm(3, alpha=1.0), nn.Linear(8, 10)

    def forward(self, x):
        x = nn.functional.interpolate(self.norm(x), size=(5, 8), mode="bilinear")[:, 0]
        both = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1).transpose(0, 1)
        state, ramp = torch.zeros(1, both.shape[1], 8), torch.linspace(0, 1, 8).expand(1, both.shape[1], -1)
        return self.head(self.layer(torch.cat([both, ramp]), state)[0][-1])


def test_constants_that_are_repeated_for_every_image(tmp_path):
    torch.manual_seed(0)
    source = Repeating().eval()
    run, _, _ = imported(written(source, tmp_path / "m.onnx", 13), tmp_path / "run")
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(run.load_model()(images), source(images), atol=1e-6)


def test_a_graph_without_numbers_for_negative_pixels(tmp_path):
    make = onnx.helper
    nodes, held = head("h")
    made = [make.make_node("Sqrt", ["x"], ["r"]), make.make_node("Conv", ["r", "k"], ["h"])]
    made += [make.make_node(kind, given, [out]) for kind, given, out in nodes]
    onnx.save(model_of(made, initializers=held), tmp_path / "m.onnx")
    imported(tmp_path / "m.onnx", tmp_path / "run")


def test_functions_of_a_file_are_replaced_by_their_nodes(tmp_path):
    """As torch 2.11 writes some activations."""
    make, weight = onnx.helper, onnx.numpy_helper.from_array(np.eye(64, 10, dtype=np.float32), "w")
    nodes = [("Flatten", ["x"], "flat", ""), ("Twice", ["flat"], "twice", "own"), ("MatMul", ["twice", "w"], "y", "")]
    program = model_of(
        [make.make_node(kind, given, [out], domain=domain) for kind, given, out, domain in nodes], initializers=[weight]
    )
    twice = [make.make_node("Add", ["a", "a"], ["b"])]
    program.functions.append(make.make_function("own", "Twice", ["a"], ["b"], twice, [make.make_opsetid("", 13)]))
    program.opset_import.append(make.make_opsetid("own", 1))
    program.ir_version = 8
    onnx.save(program, tmp_path / "m.onnx")
    run, _, _ = imported(tmp_path / "m.onnx", tmp_path / "run")
    model, images = run.load_model(), torch.rand(3, 1, 8, 8)
    assert torch.allclose(model.network(images), 2 * images.flatten(1)[:, :10])


def test_two_rows_of_logits_for_an_image_are_refused(refused, tmp_path):
    make, array = onnx.helper, onnx.numpy_helper.from_array
    held = [array(np.ones((64, 10), np.float32), "w"), array(np.array([-1, 5]), "rows")]
    nodes = [("Flatten", ["x"], "a"), ("MatMul", ["a", "w"], "b"), ("Reshape", ["b", "rows"], "y")]
    onnx.save(
        model_of([make.make_node(*node[:2], [node[2]]) for node in nodes], initializers=held), tmp_path / "m.onnx"
    )
    with pytest.raises(InputError, match=r"output of shape \(8, 5\) for 4 images"):
        imported(tmp_path / "m.onnx", tmp_path / "run")
    line = refused("export", tmp_path / "m.onnx", "--target", "x86-cpu", "-o", tmp_path / "bundle")
    assert "gives an output of shape" in line


def test_external_data_outside_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    weight = onnx.numpy_helper.from_array(np.ones((64, 10), np.float32), "w")
    make = onnx.helper
    nodes = [make.make_node("Flatten", ["x"], ["flat"]), make.make_node("MatMul", ["flat", "w"], ["y"])]
    program = model_of(nodes, initializers=[weight])
    onnx.save(program, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    imported(folder / "m.onnx", tmp_path / "inside")
    (folder / "w.bin").rename(tmp_path / "w.bin")
    stored = onnx.load(folder / "m.onnx", load_external_data=False)
    stored.graph.initializer[0].external_data[0].value = "../w.bin"
    (folder / "m.onnx").write_bytes(stored.SerializeToString())
    with pytest.raises(InputError, match=r"'\.\./w\.bin', outside"):
        imported(folder / "m.onnx", tmp_path / "outside")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.opset_import[0].__setattr__("version", 9), "opset 9"),
        (lambda p: p.graph.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", 9), "resize"),
        (lambda p: p.graph.input[0].type.tensor_type.__setattr__("elem_type", 2), "float32"),
        (lambda p: p.graph.node[0].__setattr__("op_type", "NonZero"), "NonZero"),
        (lambda p: p.opset_import[0].__setattr__("version", 99), "opset 99, 11 to"),
        (lambda p: p.__setattr__("ir_version", 99), "IR version 99"),
        (lambda p: p.graph.sparse_initializer.add(), "dense"),
        (
            lambda p: p.graph.node[-1].CopyFrom(
                onnx.helper.make_node("ArgMax", p.graph.node[-1].input, p.graph.node[-1].output, axis=1)
            ),
            "int64, not logits.*ArgMax",
        ),
        (
            lambda p: p.graph.node[-1].CopyFrom(
                onnx.helper.make_node("ReduceMax", p.graph.node[-1].input, p.graph.node[-1].output, axes=[1])
            ),
            "one value for an image; export two logits",
        ),
        (lambda p: p.graph.node[-1].attribute[0].__setattr__("i", 0), "other logits alone than beside others"),
        (lambda p: p.graph.input[0].type.tensor_type.shape.dim[1].__setattr__("dim_value", 3), r"data\.channels"),
        (
            lambda p: p.graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", 1 << 31),
            "fewer or smaller",
        ),
        (lambda p: p.graph.initializer[0].dims.append(2), "not a valid ONNX graph"),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path, change, says):
    path = written(network(), tmp_path / "m.onnx", 13)
    program = onnx.load(path)
    change(program)
    onnx.save(program, path)
    with pytest.raises(InputError, match=says):
        imported(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"noise", b"\x08\x07"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as ONNX"):
        imported(tmp_path / "m.onnx", tmp_path / "run")


def test_another_number_of_classes_asks_for_names(tmp_path):
    path = written(network(classes=7), tmp_path / "m.onnx", 13)
    with pytest.raises(InputError, match=r"7 classes.*`classes`"):
        imported(path, tmp_path / "run")
