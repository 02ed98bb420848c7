from __future__ import annotations

import contextlib
import copy
import dataclasses

import numpy as np
import pytest

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.bundle import export_bundle, refuse_choices
from robust_edge_exporters.formats.onnx.calibration import METHODS, distributions, scores
from robust_edge_exporters.formats.onnx.export import converted, export_onnx
from robust_edge_exporters.formats.onnx.int8 import Quantiser
from robust_edge_exporters.formats.onnx.weights import count_nonzeros, weights_of
from robust_edge_exporters.parity import MIN_AGREEMENT, _refuse_8_bits, refuse_broken
from robust_edge_exporters.quantisation import TooFewBits
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.load import load
from robust_edge_runtimes.verdict.measurement import parity_of

torch = pytest.importorskip("torch", reason="exporters start from a torch network")
onnx = pytest.importorskip("onnx", reason="exporters write ONNX")
ort = pytest.importorskip("onnxruntime", reason="the quantiser is ONNX Runtime's")

SHAPE = (1, 6, 6)
TARGETS = [("x86-cpu-int8", None), ("arm-cpu-int8", None), ("arm-cpu-int8", "4.6"), ("jetson-gpu", "7.2")]


@pytest.fixture(scope="module")
def quantised(model, images, tmp_path_factory):
    """quantised(target, jetpack) -> the written program."""
    known = {}

    def write(name, jetpack):
        if (name, jetpack) not in known:
            folder = tmp_path_factory.mktemp("int8")
            settings = ExportSettings(precision="int8", calibration=images)
            export_onnx(model, SHAPE, target_named(name, jetpack), str(folder), settings)
            known[name, jetpack] = onnx.load(str(folder / "model.onnx"))
        return known[name, jetpack]

    return write


def constant(program, name):
    return onnx.numpy_helper.to_array(next(item for item in program.graph.initializer if item.name == name))


def weight_quantisers(program):
    """(weight, scale, zero point) of each Dequantize node that feeds a layer with weights."""
    stored = weights_of(program)
    nodes = {node.input[0]: node for node in program.graph.node if node.op_type == "DequantizeLinear"}
    assert set(stored) <= set(nodes)
    return [(stored[k], constant(program, nodes[k].input[1]), constant(program, nodes[k].input[2])) for k in stored]


@pytest.mark.parametrize(("name", "jetpack"), TARGETS)
def test_zeros_stay_zeros_and_weights_are_rounded_to_the_nearest_step(quantised, model, name, jetpack):
    found = weight_quantisers(quantised(name, jetpack))
    batch_norms = [model.norm1, model.norm2, None]
    layers = [model.first, model.second, model.head]
    assert len(found) == 3
    for (stored, scale, zero), layer, norm in zip(found, layers, batch_norms, strict=True):
        weight = layer.weight.double()
        if norm is not None:  # the fold, from batch-norm's own formula
            factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            weight = weight * factor[:, None, None, None]
        weight = weight.numpy()
        stored = stored if stored.shape == weight.shape else stored.T
        assert not zero.any()
        assert scale.shape in ((len(weight),), (1,), ())  # per output channel for convolutions
        assert stored.dtype == np.int8
        assert (stored[weight == 0] == 0).all()
        steps = np.broadcast_to(scale.reshape(-1, *[1] * (weight.ndim - 1)), weight.shape)
        assert np.abs(stored * steps - weight).max() <= 0.501 * steps.max()
    assert found[0][1].shape == (8,)


def test_x86_weights_have_seven_bits_and_arm_ones_eight(quantised):
    """Pairs of products of 8-bit numbers overflow the 16 bits that x86 without VNNI adds them in."""
    largest = [
        max(int(np.abs(stored.astype(int)).max()) for stored, _, _ in weight_quantisers(quantised(name, None)))
        for name in ("x86-cpu-int8", "arm-cpu-int8")
    ]
    assert largest == [64, 127]


@pytest.mark.parametrize(("name", "jetpack"), TARGETS)
def test_the_count_is_that_of_the_stored_integers(quantised, model, name, jetpack):
    program = quantised(name, jetpack)
    found = count_nonzeros(program)
    stored = [weight for weight, _, _ in weight_quantisers(program)]
    assert found.nonzero == sum(int((weight != 0).sum()) for weight in stored)
    assert found.weights == sum(p.numel() for n, p in model.named_parameters() if n in LAYERS)
    assert found.nonzero <= sum(int((p != 0).sum()) for n, p in model.named_parameters() if n in LAYERS)


LAYERS = ("first.weight", "second.weight", "head.weight")


def test_tensorrt_reads_it(quantised):
    """Its parser takes zero points of zero only, and no integer biases."""
    program = quantised("jetson-gpu", "7.2")
    nodes = [node for node in program.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert nodes
    for node in nodes:
        assert not constant(program, node.input[2]).any()
        assert constant(program, node.input[2]).dtype == np.int8
    assert [(item.domain, item.version) for item in program.opset_import] == [("", 20)]


def test_the_pixels_are_not_rounded_before_they_are_normalised(quantised):
    program = quantised("x86-cpu-int8", None)
    reads_images = [node.op_type for node in program.graph.node if "images" in node.input]
    assert reads_images
    assert "QuantizeLinear" not in reads_images


def test_a_bundle_reports_its_distance_and_passes_with_it(model, request_for, images, tmp_path):
    request = request_for(model, target=target_named("x86-cpu-int8"), calibration=images)
    exported = export_bundle(request, tmp_path / "b")
    opened = open_bundle(tmp_path / "b")
    with load(opened) as runtime:
        logits = runtime.infer(request.golden.clean)
        again = parity_of(runtime, opened.golden())
    expected = request.golden
    largest = max(np.abs(expected.clean_logits).max(), np.abs(expected.attacked_logits).max())
    assert 0 < np.abs(logits - expected.clean_logits).max() / largest <= exported.parity.max_logit_error * 1.0001
    record = opened.manifest.parity
    assert record.max_logit_error == exported.parity.max_logit_error == again.max_logit_error
    assert record.max_logit_error < record.tolerance == opened.golden().tolerance < 0.3
    assert record.argmax_agreement == again.argmax_agreement > 0.9
    assert opened.manifest.artifact.precision == "int8"
    assert opened.manifest.sparsity.nonzero <= request.sparsity.nonzero


@pytest.mark.parametrize("calibration", [None, np.zeros((0, *SHAPE), np.float32)])
def test_without_images_it_is_refused(model, request_for, tmp_path, calibration):
    request = request_for(model, target=target_named("x86-cpu-int8"), calibration=calibration)
    with pytest.raises(ExportError, match="int8 needs training images"):
        export_bundle(request, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_a_network_for_which_8_bits_are_too_few_is_refused(model, request_for, images, tmp_path):
    """Large weights of a pixel that is always 0 take all steps: the other weights of the layer round to 0."""
    broken = copy.deepcopy(model)
    broken.norm2.bias[0] = -1000
    broken.head.weight[:, 0] = 1e4
    request = request_for(broken, target=target_named("x86-cpu-int8"), calibration=images, compact=False)
    with pytest.raises(ExportError, match=r"8 bits are too few.*classes agree on .*% \(at least 95%\); nothing was"):
        export_bundle(request, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def golden_of(logits):
    images = np.zeros((len(logits), *SHAPE), np.float32)
    return Golden(images, images, logits.argmax(1), logits, logits, 1e-3)


@pytest.mark.parametrize(("wrong", "refused"), [(2, False), (3, True)])
def test_classes_of_the_surest_half_must_agree_on_95_percent(wrong, refused):
    """Forty images, each twice; of the surer twenty one may change its class, of the others all may."""
    logits = np.zeros((40, 3), np.float32)
    logits[:, 0] = np.arange(1, 41)
    found = logits.copy()
    found[:20] = found[:20, ::-1]
    both = np.concatenate([found, found])
    surest = np.r_[20:40, 60:80][:wrong]
    both[surest] = both[surest, ::-1]
    with pytest.raises(ExportError, match="too few") if refused else contextlib.nullcontext():
        refuse_broken(both, golden_of(logits), MIN_AGREEMENT["int8"])


def test_logits_that_are_not_finite_are_refused():
    logits = np.eye(3, dtype=np.float32)
    found = np.concatenate([logits, logits])
    refuse_broken(found, golden_of(logits), MIN_AGREEMENT["int8"])
    found[0, 1] = np.nan
    with pytest.raises(ExportError, match="too few"):
        refuse_broken(found, golden_of(logits), MIN_AGREEMENT["int8"])


@pytest.mark.parametrize("last", [0.0, 0.5])
def test_a_checkpoint_with_the_same_logits_for_every_image_is_named(last):
    """8 bits are not its fault, and weight decay no way out."""
    logits = np.tile(np.float32([1, -2, 3]) * last, (8, 1))
    found = np.concatenate([logits, logits]) + np.float32(0.01)
    with pytest.raises(TooFewBits, match="same logits for every image"):
        _refuse_8_bits(found, golden_of(logits), MIN_AGREEMENT["int8"], 1e-4)
    varied = logits + np.arange(8, dtype=np.float32)[:, None]
    with pytest.raises(TooFewBits, match="too few"):
        _refuse_8_bits(np.concatenate([varied, varied]) + 1, golden_of(varied), MIN_AGREEMENT["int8"], 1e-4)


def test_ranges_are_the_largest_values_of_every_tensor(model, images):
    """Against torch's own activations."""
    found = distributions(converted(model, SHAPE, target_named("jetson-gpu", "5.1")), images)
    found = {name: max(map(abs, values.range("minmax"))) for name, values in found.items()}
    x = torch.from_numpy(images)
    normalised = (x - model.mean) / 0.25
    hidden = torch.relu(model.norm1(model.first(normalised)))
    for tensor in (normalised, hidden, model(x)):
        largest = float(tensor.abs().max())
        assert any(abs(value - largest) <= 1e-4 * largest for value in found.values())
    assert found["images"] == pytest.approx(float(x.abs().max()))


def test_a_fixed_batch_is_calibrated_in_its_own_size(model, images, tmp_path):
    settings = ExportSettings(precision="int8", calibration=images, batch=7)
    export_onnx(model, SHAPE, target_named("arm-cpu-int8"), str(tmp_path), settings)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images[:7]})
    expected = model(torch.from_numpy(images[:7])).numpy()
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


def test_fp16_keeps_every_weight_that_is_not_zero(model, images, tmp_path):
    small = dataclasses.replace(target_named("nvidia-gpu"))
    found = export_onnx(model, SHAPE, small, str(tmp_path), ExportSettings(precision="fp16"))
    program = onnx.load(str(tmp_path / "model.onnx"))
    assert {weight.dtype for weight in weights_of(program).values()} == {np.dtype(np.float16)}
    assert found.sparsity.nonzero == sum(int((p != 0).sum()) for n, p in model.named_parameters() if n in LAYERS)
    types = [port.type.tensor_type.elem_type for port in (*program.graph.input, *program.graph.output)]
    assert types == [onnx.TensorProto.FLOAT] * 2
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images})
    expected = model(torch.from_numpy(images)).numpy()
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 1e-6 < error < 5e-3  # rounded, and only to 11 bits


@pytest.fixture(scope="module")
def quantiser(model, images):
    """quantiser(**settings) -> a Quantiser of the network for x86."""
    target = target_named("x86-cpu-int8")

    def make(network=model, **settings):
        return Quantiser(converted(network, SHAPE, target), target.int8, ExportSettings(precision="int8", **settings))

    return make


def test_the_calibration_with_the_smallest_error_on_other_images_is_chosen(quantiser, images):
    """Against ONNX Runtime on the written programs."""
    found = quantiser(calibration=images[:30], held_out=images[30:])
    expected = scores(found.program([*found.layers]), images[30:])
    apart = {m: np.abs(scores(found.program(method=m), images[30:]) - expected) for m in METHODS}
    errors = {m: np.sqrt(np.mean(values**2)) for m, values in apart.items()}
    allowed = [m for m, values in apart.items() if values.max() <= 1.05 * apart["minmax"].max()]
    assert found.method == min(allowed, key=errors.get)
    report = found.report()
    assert [item.method for item in report.candidates] == list(METHODS)
    for item in report.candidates:
        assert item.rms == pytest.approx(errors[item.method] / np.abs(expected).max(), rel=1e-3)
    assert report.judged_on == len(images) - 30


def test_a_recorded_method_is_kept_if_it_is_as_good(quantiser, images):
    split = {"calibration": images[:30], "held_out": images[30:]}
    best, worst = quantiser(**split).method, max(quantiser(**split).candidates, key=lambda item: item.rms)
    assert quantiser(**split, calibration_method=worst.method).method == best
    assert quantiser(**split, calibration_method=best).method == best
    assert quantiser(calibration=images).method == "minmax"  # nothing to judge by


def test_skipped_layers_stay_in_fp32(quantiser, images):
    written = quantiser(calibration=images, options={"int8_skip": "second, fir*"}).program()
    types = sorted(str(weight.dtype) for weight in weights_of(written).values())
    assert types == ["float32", "float32", "int8"]
    with pytest.raises(InputError, match=r"`int8_skip`: no layer matches 'third'; there are .*second"):
        quantiser(calibration=images, options={"int8_skip": "third"})
    with pytest.raises(InputError, match="leaves no layer in 8 bits"):
        quantiser(calibration=images, options={"int8_skip": "second, *"})


def test_each_layer_is_left_out_to_explain_the_error(quantiser, images):
    found = quantiser(calibration=images, explain=True)
    losses = found.report().losses
    assert len(losses) == 3
    assert [item.share for item in losses] == sorted((item.share for item in losses), reverse=True)
    expected = scores(found.program([*found.layers]), images)
    for item in losses:
        node = next(node for node, layer in found.layers.items() if layer == item.layer)
        error = scores(found.program([node]), images) - expected
        assert item.rms == pytest.approx(np.sqrt(np.mean(error**2)) / np.abs(expected).max(), rel=1e-3)


def test_layers_are_kept_only_in_files_that_hold_8_bits():
    options = {"int8_skip": "first"}
    refuse_choices(target_named("x86-cpu-int8"), batch=None, options=options)
    refuse_choices(target_named("jetson-gpu", "7.2"), precision="int8", batch=None, options=options)
    with pytest.raises(InputError, match=r"target jetson-gpu-jp5\.1 has one of fp32"):
        refuse_choices(target_named("jetson-gpu", "5.1"), precision="int8", batch=None, options=options)
    with pytest.raises(InputError, match="for files of int8"):
        refuse_choices(target_named("x86-cpu"), batch=None, options=options)


class Block(torch.nn.Module):
    """A block of ConvNeXt: layer norm and GELU, for which there are no 8-bit kernels."""

    def __init__(self):
        super().__init__()
        self.deep, self.norm = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.LayerNorm(8)
        self.wide, self.narrow = torch.nn.Linear(8, 16), torch.nn.Linear(16, 8)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x):
        x = self.deep(x).permute(0, 2, 3, 1)
        x = x + self.narrow(torch.nn.functional.gelu(self.wide(self.norm(x))))
        return self.head(x.mean((1, 2)))


@pytest.mark.parametrize("opset", [None, 13])
def test_functions_without_8_bit_kernels_and_logits_are_not_rounded(images, opset):
    target = target_named("arm-cpu-int8", None if opset is None else "4.6")
    torch.manual_seed(0)
    program = converted(Block().eval(), SHAPE, target)
    written = Quantiser(program, target.int8, ExportSettings(precision="int8", calibration=images)).program()
    makers = {name: node.op_type for node in written.graph.node for name in node.output}
    readers = {name: node.op_type for node in written.graph.node for name in node.input}
    assert makers["logits"] in ("Gemm", "MatMul", "Add")
    erf = next(node for node in written.graph.node if node.op_type == "Erf")
    assert readers[erf.output[0]] == "Add"
    assert sorted(weight.dtype.name for weight in weights_of(written).values()) == ["int8"] * 4
    rounded = {
        makers[node.input[0]]
        for node in written.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in makers
    }
    assert not rounded & {"Erf", "Pow", "Sqrt", "Div"}
