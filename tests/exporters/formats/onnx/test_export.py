from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.onnx.export import converted, export_onnx, write_program
from robust_edge_exporters.formats.onnx.weights import count_nonzeros
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.errors import ExportError

ort = pytest.importorskip("onnxruntime", reason="the written file is run on onnxruntime")


@pytest.fixture(scope="module")
def program(exported):
    return onnx.load(str(exported / "model.onnx"))


def run(path, images):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def test_the_file_says_the_opset_and_the_ir_it_was_asked_for(program, x86):
    assert [(item.domain, item.version) for item in program.opset_import] == [("", x86.opset)]
    assert program.ir_version == x86.ir_version


def test_every_operator_exists_in_that_opset(program, x86):
    for node in program.graph.node:
        assert onnx.defs.get_schema(node.op_type, max_inclusive_version=x86.opset).since_version <= x86.opset
    assert not program.functions


def test_batch_norm_is_folded(program):
    operators = [node.op_type for node in program.graph.node]
    assert "BatchNormalization" not in operators
    assert operators.count("Conv") == 2


def test_the_weights_lie_in_the_one_file(program, exported):
    assert all(item.data_location != onnx.TensorProto.EXTERNAL for item in program.graph.initializer)
    assert sorted(path.name for path in exported.glob("model*")) == ["model.onnx"]


@pytest.mark.parametrize("batch", [1, 2, 3, 60])
def test_any_number_of_images_gives_the_networks_logits(exported, model, images, batch):
    expected = model(torch.from_numpy(images[:batch])).numpy()
    found = run(exported / "model.onnx", images[:batch])
    assert found.shape == (batch, 4)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_non_zeros_are_those_of_the_torch_weights(program, model):
    """Folding a batch-norm scales filters; it neither makes nor fills a zero."""
    found = count_nonzeros(program)
    expected = [m.weight for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert [(x.weights, x.nonzero) for x in found.layers] == [(w.numel(), int((w != 0).sum())) for w in expected]
    assert found.weights == sum(w.numel() for w in expected)
    assert found.nonzero == sum(int((w != 0).sum()) for w in expected)
    assert 0.2 < found.keep < 0.5


def test_layers_of_tokens_have_the_names_of_the_network(x86):
    """Their weights are stored transposed; torch numbers such constants."""
    network = torch.nn.Sequential(torch.nn.Linear(6, 5, bias=False), torch.nn.Linear(5, 5), torch.nn.Flatten())
    found = count_nonzeros(converted(network.eval(), (2, 3, 6), x86))
    assert [layer.name for layer in found.layers] == ["0.weight", "1.weight"]


def test_biases_and_other_constants_are_not_counted(linear):
    program = linear.program()
    program.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1000, np.float32), "spare"))
    found = count_nonzeros(program)
    assert (found.weights, found.nonzero) == (64, 16)


def test_the_artifact_describes_the_file(model, x86, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = export_onnx(model, (1, 6, 6), dataclasses.replace(x86, opset=20, ir_version=9), str(tmp_path))
    written = onnx.load(str(tmp_path / found.file))
    assert (found.opset, found.ir_version) == (20, 9)
    assert ([item.version for item in written.opset_import], written.ir_version) == ([20], 9)
    assert (found.input.name, found.input.shape) == ("images", (None, 1, 6, 6))
    assert (found.output.name, found.output.shape) == ("logits", (None, 4))
    assert found.sparsity == count_nonzeros(written)
    assert capfd.readouterr().out == ""


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(36, 4))
        self.function = function

    def forward(self, x):
        return self.function(x.flatten(1) @ self.weight)


UNSUPPORTED = {
    "no ONNX for it": lambda y: torch.linalg.eigvals(y.T @ y).real[None] + y,
    "depends on data": lambda y: y if y.sum() > 0 else -y,
    "two outputs": lambda y: (y, y),
    "no logits": lambda y: y[:, :, None, None],
    "one number": lambda y: y.sum(),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_cannot_be_written_is_one_line(case, x86, tmp_path, capfd):
    network = Module(UNSUPPORTED[case]).eval().requires_grad_(False)
    with pytest.raises(ExportError) as caught:
        export_onnx(network, (1, 6, 6), x86, str(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["4.6", "5.1", "6.2", "7.2"])
@pytest.mark.parametrize("batch", [None, 3])
def test_every_jetpack_gets_a_file_it_can_read(version, batch, model, images, tmp_path):
    target = target_named("jetson-gpu", version)
    found = export_onnx(model, (1, 6, 6), target, str(tmp_path), ExportSettings(batch=batch))
    written = onnx.load(str(tmp_path / found.file))
    opset, ir = {"4.6": (13, 7), "5.1": (17, 8), "6.2": (18, 8), "7.2": (20, 9)}[version]
    assert [(item.domain, item.version) for item in written.opset_import] == [("", opset)]
    assert written.ir_version == ir
    for node in written.graph.node:
        assert onnx.defs.get_schema(node.op_type, opset).since_version <= opset
    assert not {"BatchNormalization", "Constant", "Identity"} & {node.op_type for node in written.graph.node}
    few = images[: batch or 5]
    (logits,) = ort.InferenceSession(str(tmp_path / found.file), providers=["CPUExecutionProvider"]).run(
        None, {"images": few}
    )
    np.testing.assert_allclose(logits, model(torch.from_numpy(few)).numpy(), rtol=1e-4, atol=1e-4)
    assert found.input.shape == (batch, 1, 6, 6)
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_value == (batch or 0)


def test_the_file_says_where_it_comes_from(program, x86):
    properties = {item.key: item.value for item in program.metadata_props}
    assert properties["checkpoint_sha256"] == "c" * 64
    assert properties["classes"].splitlines()[2] == "süd"
    assert properties["target"] == x86.name


@pytest.mark.parametrize("version", ["4.6", "6.2"])
def test_the_file_says_nothing_of_the_machine_that_wrote_it(version, model, tmp_path):
    """torch notes the line of source that each node comes from."""
    export_onnx(model, (1, 6, 6), target_named("jetson-gpu", version), str(tmp_path))
    blob = (tmp_path / "model.onnx").read_bytes()
    for trace in (b".py", b"stack_trace", str(Path(__file__).parent).encode(), sys.prefix.encode()):
        assert trace not in blob


@torch.library.custom_op("strangers::odd", mutates_args=())
def odd(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@odd.register_fake
def _(x):
    return torch.empty_like(x)


@pytest.mark.parametrize("version", ["4.6", "6.2"])
def test_an_operator_of_the_users_own_is_named(version, tmp_path):
    class Own(torch.nn.Module):
        def forward(self, y):
            return odd(y).flatten(1)

    target = target_named("jetson-gpu", version)
    what = r"operator strangers(\.|::)odd of node 'odd' in module '1' \(Own\): \w+"
    with pytest.raises(ExportError, match=rf"{target.name} \(opset {target.opset}\): {what}"):
        export_onnx(torch.nn.Sequential(torch.nn.Identity(), Own()).eval(), (1, 6, 6), target, str(tmp_path))


def test_a_branch_on_values_is_named_by_its_line_and_nothing_else_is_said(x86, tmp_path, capfd):
    class Branching(torch.nn.Module):
        def forward(self, y):
            return y.flatten(1) if y.sum() > 0 else -y.flatten(1)

    line = Branching.forward.__code__.co_firstlineno + 1
    with pytest.raises(ExportError, match=rf"line {line} of .*test_export\.py: Could not guard on data-dependent"):
        export_onnx(Branching().eval(), (1, 6, 6), x86, str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_it_is_the_bytes_of_the_file_that_are_judged(model, x86, tmp_path, monkeypatch):
    """What is lost on the way to the file is found, and no file is left."""
    real = onnx.load_from_string

    def damaged(blob):
        program = real(blob)
        del program.graph.node[-1]
        return program

    program = converted(model, (1, 6, 6), x86)
    monkeypatch.setattr(onnx, "load_from_string", damaged)
    with pytest.raises(ExportError, match="not valid ONNX"):
        write_program(program, (1, 6, 6), x86, str(tmp_path), ExportSettings())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["4.6", "6.2"])
def test_an_operator_that_cannot_be_written_is_named(version, tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, y):
            return torch.special.bessel_j0(y)

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), Odd(), torch.nn.Flatten()).eval().requires_grad_(False)
    target = target_named("jetson-gpu", version)
    what = r"operator \w+\W+\w*bessel_j0 of node 'special_bessel_j0' in module '1' \(Odd\): \w+"
    with pytest.raises(ExportError, match=rf"{target.name} \(opset {target.opset}\): {what}") as caught:
        export_onnx(network, (1, 6, 6), target, str(tmp_path))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Create an" not in str(caught.value)  # of PyTorch's advice to its own developers


class Alike(torch.nn.Module):
    """Layers that share a weight, and others of equal weights: emptied by pruning, or at the same input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (torch.nn.Conv2d(3, 4, 3, padding=1) for _ in range(2))
        self.empty, self.also_empty = (torch.nn.Conv2d(4, 4, 1) for _ in range(2))
        self.shared, self.classifier = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Linear(4, 4)
        with torch.no_grad():
            self.second.load_state_dict(self.first.state_dict())
            self.empty.weight.zero_()
            self.also_empty.weight.zero_()

    def forward(self, x):
        x = self.first(x) + self.second(x)
        x = x + self.also_empty(x + self.empty(x))
        return self.classifier(self.shared(self.shared(x)).mean((2, 3)))


@pytest.mark.parametrize(("opset", "exporter"), [(18, "dynamo"), (13, "torchscript")])
def test_layers_of_equal_weights_stay_apart_and_a_shared_one_is_one(x86, opset, exporter):
    model = Alike().eval()
    target = x86.with_opset(opset)
    assert target.exporter == exporter
    program = converted(model, (3, 8, 8), target)
    weights = [module.weight for module in model.modules() if hasattr(module, "weight")]
    found = count_nonzeros(program)
    assert found.weights == sum(weight.numel() for weight in weights)
    assert found.nonzero == sum(int(weight.count_nonzero()) for weight in weights)
