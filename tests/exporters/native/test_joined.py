"""A 1x1 convolution, the depthwise one behind it and the mean of its planes are computed together."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from robust_edge_runtimes.formats.native.engine import Network
from tests.exporters.native.networks import Net, build, reference, relative_error

JOINED, APART = 0, 10**9
GEOMETRIES = [  # height, width, side of the filter, stride
    pytest.param(20, 18, 3, 1, id="masks of whole planes"),
    pytest.param(16, 16, 5, 2, id="every other pixel of whole vectors"),
    pytest.param(22, 18, 3, 2, id="rows at stride 2"),
    pytest.param(14, 14, 3, 2, id="phases"),
    pytest.param(40, 33, 5, 1, id="rows"),
    pytest.param(130, 21, 3, 2, id="rows of a large plane"),
]


def network(path, height, width, side, stride, *, activation="HardSwish", channels=37):
    """Expand, depthwise, squeeze and excite, project, with a residual around the depthwise layer at stride 1."""
    net = Net(5, height, width)
    weight = net.weights(channels, 5, 1, 1, density=0.7)
    weight[3], weight[11, 1:] = 0, 0
    wide = net.add(activation, net.conv("input", weight))
    pads, filters = (side // 2,) * 4, net.weights(channels, 1, side, side, density=0.4)
    filters[5] = 0
    deep = net.add("Relu", net.conv(wide, filters, group=channels, pads=pads, strides=(stride, stride)))
    gate = net.conv(net.add("GlobalAveragePool", deep), net.weights(channels, channels, 1, 1))
    scaled = net.add("Mul", deep, net.add("Sigmoid", gate))
    return net.save(path, net.conv(scaled, net.weights(4, channels, 1, 1, density=0.5))), net.images(5)


def logits(path, folder, images, join_bytes, threads):
    """Of the generated network, and its export."""
    folder.mkdir(exist_ok=True)
    export = export_native(path, folder, options=Options(images=2, join_bytes=join_bytes))
    engine = Network(build(folder), folder / "weights.bin", threads=threads)
    found = engine.infer(images)
    engine.close()
    return found, export


def starts_joined(export):
    """Whether the first two layers are computed together."""
    first, second, *_ = export.layers
    return first.operator_index == second.operator_index


@pytest.mark.parametrize(("height", "width", "side", "stride"), GEOMETRIES)
@pytest.mark.parametrize("threads", [1, 3])
def test_joined_layers_compute_what_they_compute_apart(tmp_path, height, width, side, stride, threads):
    path, images = network(tmp_path / "model.onnx", height, width, side, stride)
    joined, export = logits(path, tmp_path / "joined", images, JOINED, threads)
    apart, _ = logits(path, tmp_path / "apart", images, APART, threads)
    assert [layer.operator_index for layer in export.layers][:3] == [1, 1, 2]
    assert "mean(j" not in (tmp_path / "joined/model.c").read_text().split("static void network(")[1]
    assert relative_error(joined, apart) < 1e-6
    assert relative_error(joined, reference(path, images)) < 1e-5


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Sigmoid", "Identity"])
def test_every_activation_between_them(tmp_path, activation):
    path, images = network(tmp_path / "model.onnx", 19, 17, 3, 1, activation=activation)
    joined, export = logits(path, tmp_path / "joined", images, JOINED, 2)
    assert starts_joined(export)
    assert relative_error(joined, reference(path, images)) < 1e-5


def test_more_channels_than_fit_at_a_time(tmp_path):
    path, images = network(tmp_path / "model.onnx", 96, 90, 3, 2, channels=150)
    joined, export = logits(path, tmp_path / "joined", images[:1], JOINED, 1)
    apart, whole = logits(path, tmp_path / "apart", images[:1], APART, 1)
    assert relative_error(joined, apart) < 1e-6
    assert export.memory_bytes < 0.7 * whole.memory_bytes  # the planes between the convolutions are not kept


def test_an_output_that_others_read_is_not_joined(tmp_path):
    net = Net(4, 18, 20)
    wide = net.conv("input", net.weights(9, 4, 1, 1, density=0.6))
    deep = net.conv(wide, net.weights(9, 1, 3, 3), group=9, pads=(1, 1, 1, 1))
    path, images = net.save(tmp_path / "model.onnx", net.add("Add", deep, wide)), net.images(3)
    found, export = logits(path, tmp_path / "out", images, JOINED, 1)
    assert len({layer.operator_index for layer in export.layers}) == 2
    assert np.allclose(found, reference(path, images), rtol=1e-4, atol=1e-5)


def test_a_residual_of_the_depthwise_layer_is_added(tmp_path):
    net = Net(4, 33, 40)
    first = net.conv("input", net.weights(9, 4, 3, 3, density=0.6), pads=(1, 1, 1, 1))
    wide = net.add("Relu", net.conv(first, net.weights(9, 9, 1, 1, density=0.6)))
    deep = net.conv(wide, net.weights(9, 1, 3, 3), group=9, pads=(1, 1, 1, 1))
    path, images = net.save(tmp_path / "model.onnx", net.add("Add", deep, first)), net.images(3)
    for threads in (1, 2):
        found, export = logits(path, tmp_path / "out", images, JOINED, threads)
        assert [layer.operator_index for layer in export.layers] == [1, 2, 2]
        assert relative_error(found, reference(path, images)) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(56, 56), (18, 20), (113, 75)])
def test_a_residual_that_is_the_output_of_a_1x1_convolution_is_no_input(tmp_path, height, width):
    """The depthwise layer alone reads it, but adds it and does not filter it."""
    net = Net(4, height, width)
    deep = net.add("Relu", net.conv("input", net.weights(9, 4, 3, 3, density=0.6), pads=(1, 1, 1, 1)))
    plain = net.conv("input", net.weights(9, 4, 1, 1, density=0.6))
    deep = net.conv(deep, net.weights(9, 1, 3, 3), group=9, pads=(1, 1, 1, 1))
    path, images = net.save(tmp_path / "model.onnx", net.add("Add", deep, plain)), net.images(3)
    found, _ = logits(path, tmp_path / "out", images, JOINED, 2)
    assert relative_error(found, reference(path, images)) < 1e-5


def test_means_of_means_and_means_that_others_read(tmp_path):
    net = Net(4, 33, 40)
    wide = net.conv("input", net.weights(9, 4, 1, 1, density=0.6))
    deep = net.add("Relu", net.conv(wide, net.weights(9, 1, 5, 5), group=9, pads=(4, 4, 4, 4), dilations=(2, 2)))
    mean = net.add("GlobalAveragePool", deep)
    outputs = [net.add("GlobalAveragePool", net.add("Sigmoid", mean)), net.add("GlobalAveragePool", deep), mean, deep]
    path, images = net.save(tmp_path / "model.onnx", *outputs), net.images(5)
    for threads in (1, 12):
        found, export = logits(path, tmp_path / "out", images, JOINED, threads)
        assert starts_joined(export)
        assert relative_error(found, reference(path, images)) < 1e-5


def test_weights_of_16_bits(tmp_path):
    path, images = network(tmp_path / "model.onnx", 20, 18, 3, 1)
    assert starts_joined(export_native(path, tmp_path, weights="fp16", options=Options(join_bytes=JOINED)))
    engine = Network(build(tmp_path), tmp_path / "weights.bin")
    assert relative_error(engine.infer(images), reference(path, images)) < 1e-2
    engine.close()


def test_a_size_below_zero_is_refused():
    with pytest.raises(ValueError, match="join_bytes -5 at least 0"):
        Options(join_bytes=-5)
