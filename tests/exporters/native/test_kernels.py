"""Every convolution kernel against loops over taps, many geometries in one compiled program."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from tests.exporters.native.networks import Net, answers

PLANES = [(1, 1), (3, 5), (4, 4), (6, 8), (7, 7), (8, 8), (9, 13), (11, 16), (16, 16), (17, 32), (17, 33), (24, 56)]
PLANES += [(4, 67)]  # long odd rows: tiles of one row that begin between units
PLANES += [(5, 64)]  # rows of 32 pixels at stride 2
KERNELS = [(1, 1), (3, 3), (5, 2), (1, 7)]
DENSITIES = [0.0, 0.1, 0.5, 1.0]


def convolve(images, weight, bias, *, strides, pads, dilations, group):
    """Sum over taps of weight times the strided, padded input, in double precision."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    (outputs, inputs, height, width), count = weight.shape, len(images)
    size = [(padded.shape[2 + a] - dilations[a] * (k - 1) - 1) // strides[a] + 1 for a, k in enumerate((height, width))]
    result = np.zeros((count, group, outputs // group, *size))
    grouped = weight.astype(np.float64).reshape(group, outputs // group, inputs, height, width)
    for y, x in itertools.product(range(height), range(width)):
        top, left = y * dilations[0], x * dilations[1]
        part = padded[
            :, :, top : top + strides[0] * size[0] : strides[0], left : left + strides[1] * size[1] : strides[1]
        ]
        part = part[:, :, : size[0], : size[1]].reshape(count, group, inputs, *size)
        result += np.einsum("goi,ngihw->ngohw", grouped[..., y, x], part)
    return result.reshape(count, outputs, *size) + bias[:, None, None]


def geometries(height, width):
    """Attributes of convolutions whose output is not empty."""
    for kernel, stride, pad, dilation in itertools.product(KERNELS, [1, 2, 3], [0, 1, 2], [1, 2]):
        pads = (pad, pad, pad, max(0, pad - 1) if stride == 2 else pad)
        reach = [dilation * (k - 1) + 1 for k in kernel]
        fits = reach[0] <= height + pads[0] + pads[2] and reach[1] <= width + pads[1] + pads[3]
        if fits and (dilation == 1 or kernel != (1, 1)):
            yield kernel, {"strides": (stride, stride), "pads": pads, "dilations": (dilation, dilation)}


def sweep(net, channels):
    """Convolutions of one input: all geometries, groups and densities taking turns; with their weights."""
    turns = itertools.cycle(itertools.product([1, 2, channels], DENSITIES))
    for (kernel, attributes), (group, density) in zip(geometries(*net.shape[1:]), turns, strict=False):
        weight = net.weights(channels + group * (group == 2), channels // group, *kernel, density=density)
        weight = weight[: len(weight) // group * group]
        if density == 0.5:
            weight[0] = 0  # an empty row
            weight[-1] = 1  # a full one
        yield weight, attributes | {"group": group}


@pytest.mark.parametrize("kernel", [None, "sparse", "dense"], ids=["chosen", "sparse", "dense"])
@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_convolutions_match_loops_over_taps(plane, kernel, tmp_path):
    channels, net = 6, Net(6, *plane)
    outputs, expected, images = [], [], net.images(3)
    for weight, attributes in sweep(net, channels):
        bias = net.vector(len(weight))
        outputs.append(
            net.add("Conv", "input", net.constant(weight), net.constant(bias), **attributes),
        )
        expected.append(convolve(images, weight, bias, **attributes).reshape(3, -1))
    net.save(tmp_path / "model.onnx", *outputs)
    export_native(tmp_path / "model.onnx", tmp_path, options=Options(images=2, kernel=kernel, block_bytes=8192))
    got = np.split(answers(tmp_path, images, threads=2), np.cumsum([e.shape[1] for e in expected])[:-1], axis=1)
    for one, right, node in zip(got, expected, net.nodes, strict=False):
        assert np.abs(one - right).max() < 2e-5, node
