"""Threads share the rows of large planes and the channels of small ones, and round differently at most."""

from __future__ import annotations

import pytest

from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.kernels.conv_strips import CHANNELS_IN_PLACE, PART_PIXELS
from robust_edge_runtimes.formats.native.engine import Network
from tests.exporters.native.networks import Net, build, reference, relative_error

WIDE = CHANNELS_IN_PLACE + 44  # channels in two blocks


def network(folder, height, width):
    """Convolutions that are packed, read in place, strided, grouped and added to a residual; pools and activations."""
    net = Net(6, height, width)
    pads = (1, 1, 1, 1)
    first = net.add("Relu", net.conv("input", net.weights(9, 6, 3, 3, density=0.3), pads=pads))
    wide = net.add("HardSwish", net.conv(first, net.weights(WIDE, 9, 1, 1, density=0.3), pads=(0, 0, 0, 0)))
    added = net.add("Add", net.conv(wide, net.weights(9, WIDE, 1, 1, density=0.2), pads=(0, 0, 0, 0)), first)
    pooled = net.add("MaxPool", added, kernel_shape=(3, 3), pads=pads, strides=(1, 1))
    swished = net.add("HardSwish", net.add("AveragePool", pooled, kernel_shape=(2, 2), strides=(1, 1)))
    grouped = net.add("Conv", swished, net.constant(net.weights(12, 3, 3, 3, density=0.4)), group=3, pads=pads)
    half = net.conv(grouped, net.weights(8, 12, 3, 3, density=0.3), pads=pads, strides=(2, 2))
    return net.save(folder / "model.onnx", half)


@pytest.mark.parametrize(("height", "width"), [(61, 44), (40, 70), (53, 112), (200, 14)])
def test_any_number_of_threads_agrees_with_one(tmp_path, height, width):
    path = network(tmp_path, height, width)
    images = Net(6, height, width).images(3)
    export = export_native(path, tmp_path, options=Options(images=2))
    assert {"strips"} <= {layer.kernel for layer in export.layers}
    assert height * width > 2 * PART_PIXELS
    library = build(tmp_path, flags=("-O1", "-march=native"))
    expected = reference(path, images)
    found = {}
    for threads in (1, 2, 3, 4, 6, 7):
        network_of = Network(library, tmp_path / "weights.bin", threads=threads)
        found[threads] = network_of.infer(images)
        network_of.close()
        assert relative_error(found[threads], expected) < 1e-5
        assert relative_error(found[threads], found[1]) < 1e-6, threads
