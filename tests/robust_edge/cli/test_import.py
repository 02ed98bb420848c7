"""`import`: every kind of file becomes a run, and every file that cannot is refused in one line."""

import json
import os

import pytest
import safetensors.torch
import torch
from torch import nn

from robust_edge.models.small_cnn import small_cnn
from robust_edge.run.directory import open_run

FEW = ("--set", "data.limit_train=20", "--set", "data.limit_test=20")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every kind of file, good and bad, by name."""
    onnx = pytest.importorskip("onnx", reason="some files are ONNX")
    folder, source = tmp_path_factory.mktemp("files"), small_cnn(10, 1).eval()
    weights = source.state_dict()
    safetensors.torch.save_file(weights, folder / "good.safetensors")
    torch.save(weights, folder / "good.pth")
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, folder / "wrapped.pt")
    torch.save(_Harmful(), folder / "pickle.pth")
    torch.save(small_cnn(7, 1).state_dict(), folder / "seven.pth")
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:500])
    for name in ("noise.onnx", "noise.pt2", "noise.pth", "noise.safetensors", "noise.h5"):
        (folder / name).write_bytes(b"noise")
    linear, any_number = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(linear, (torch.rand(2, 1, 8, 8),), dynamic_shapes=any_number)
    torch.export.save(program, folder / "good.pt2")
    (folder / "names.txt").write_text("a\nb\n")
    _write_graphs(onnx, folder)
    return folder


class _Harmful:
    def __reduce__(self):
        return os._exit, (1,)


def _write_graphs(onnx, folder):
    """A classifier of ten classes; and files with another output, two inputs, and an operator of another domain."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(nn.Linear(64, 10).weight.detach().T.contiguous().numpy(), "w")
    flat = make.make_node("Flatten", ["x"], ["flat"])
    product = make.make_node("MatMul", ["flat", "w"], ["y"])
    graphs = {
        "good.onnx": ([flat, product], ["x"]),
        "maps.onnx": ([make.make_node("Relu", ["x"], ["y"])], ["x"]),
        "two.onnx": ([make.make_node("Add", ["x", "z"], ["x_"]), flat, product], ["x", "z"]),
        "own.onnx": ([flat, make.make_node("Mine", ["flat", "w"], ["y"], domain="my.domain")], ["x"]),
    }
    for name, (nodes, inputs) in graphs.items():
        ports = [make.make_tensor_value_info(port, kind, ("N", 1, 8, 8)) for port in inputs]
        graph = make.make_graph(nodes, "g", ports, [make.make_tensor_value_info("y", kind, None)], [weight])
        opsets = [make.make_opsetid("", 13), make.make_opsetid("my.domain", 1)]
        onnx.save(make.make_model(graph, opset_imports=opsets, ir_version=7), folder / name)


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("good.onnx", ""),
        ("good.safetensors", "--arch small_cnn"),
        ("good.pth", "--arch small_cnn --mean 0.3 --std 1/255"),
        ("wrapped.pt", "--arch small_cnn"),
        ("good.pt2", "--allow-code"),
    ],
)
def test_every_kind_of_file_becomes_a_run(cli, files, tmp_path, file, arguments):
    result = cli("import", files / file, *arguments.split(), *FEW, "--json", "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "attacked" not in result.stderr
    assert json.loads(result.stdout)["model"]["shape"] == [1, 8, 8]
    model = open_run(tmp_path / "run").load_model()
    assert model(torch.rand(3, 1, 8, 8)).shape == (3, 10)


def test_a_constant_network_that_nothing_attacked(cli, tmp_path):
    constant = small_cnn(10, 1).state_dict()
    constant["11.bias"][3] = 1e3
    torch.save(constant, tmp_path / "constant.pth")
    run = tmp_path / "run"
    result = cli("import", tmp_path / "constant.pth", "--arch", "small_cnn", *FEW, "--mean", "0.3", "-o", run)
    assert "clean 10.0%, not attacked (--eps 8/255" in result.stdout.replace("\n", " ")
    origin = "it was imported, not trained here, so that the likely causes are: --mean and --std"
    assert origin in result.stderr
    evaluated = cli("evaluate", run, "--steps", 1, "--limit", 20).stdout
    assert origin in evaluated
    assert "learnt" not in evaluated
    checkpoint = open_run(run).checkpoint()
    file, options = checkpoint.imported.file, checkpoint.imported.options
    assert cli("import", file, *options, "-o", tmp_path / "again").exit_code == 0
    again = open_run(tmp_path / "again").checkpoint()
    assert (again.model, again.metrics, again.imported) == (checkpoint.model, checkpoint.metrics, checkpoint.imported)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("missing.onnx", "is not a file"),
        ("noise.h5", "must end in one of .onnx"),
        ("missing.onnx --dataset folder", "missing.onnx is not a file"),
        ("noise.onnx", "cannot be read as ONNX"),
        ("noise.pt2 --dataset folder", "pass --allow-code"),
        ("noise.pt2 --allow-code", "cannot be read as a program"),
        ("noise.pth --arch small_cnn", "noise.pth"),
        ("noise.safetensors --arch small_cnn", "noise.safetensors"),
        ("cut.safetensors --arch small_cnn", "cut.safetensors"),
        ("pickle.pth --arch small_cnn", "pickle.pth"),
        ("good.pth", "name their architecture in --arch"),
        ("good.pth --arch small_cnm", "did you mean 'small_cnn'"),
        ("good.pth --arch torchvision/resnet_18", "did you mean 'resnet18'"),
        ("good.pth --arch torchvision/fcn_resnet50", "fcn_resnet50"),
        ("good.pth --arch nowhere:build", "nowhere"),
        ("good.pth --arch resnet18", "good.pth"),
        ("seven.pth --arch small_cnn", "it was trained for 7 classes, data set digits has 10 (0, 1,"),
        ("good.onnx --arch small_cnn", "leave --arch out"),
        ("good.onnx --input-shape 8x8", "3x224x224"),
        ("good.onnx --input-shape 3x8x8", "leave it out"),
        ("good.onnx --mean 0.1,0.2", "--mean has 2 values, the images have 1 channels"),
        ("good.onnx --mean 123,117,51", "--mean 0.482353,0.458824,0.2 --std 0.00392157"),
        ("good.onnx --mean 51 --std 1/255", "--mean is 51, but pixels are in [0, 1]"),
        ("good.onnx --std 0", "above 0"),
        ("good.onnx --std x", "not a list of numbers"),
        (
            "good.onnx --classes {files}/names.txt",
            "the network has 10 classes, --classes {files}/names.txt names 2 (a, b), data set digits has 10 (0, 1,",
        ),
        ("good.onnx --classes {files}/missing.txt", "missing.txt"),
        ("good.onnx --dataset folder", "folder"),
        ("good.onnx --dataset folder --data-dir {files}", "train"),
        ("maps.onnx", "the logits of a classifier"),
        ("two.onnx", "2 inputs"),
        ("own.onnx", "Mine"),
    ],
)
def test_what_cannot_be_imported_is_one_line(refused, files, tmp_path, arguments, says):
    file, *rest = arguments.format(files=files).split()
    assert says.format(files=files) in refused("import", files / file, *rest, *FEW, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()
