"""Every convolution kernel against loops over taps, all planes and geometries in one compiled program."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from tests.exporters.native.networks import Net, answers

PLANES = [(1, 1), (3, 5), (4, 4), (6, 8), (7, 7), (8, 8), (9, 13), (11, 16), (16, 16), (17, 32), (17, 33), (24, 56)]
PLANES += [(4, 67)]  # long odd rows: tiles of one row that begin between units
PLANES += [(5, 64)]  # rows of 32 pixels at stride 2
CHANNELS, WHOLE = 6, (24, 67)
KERNELS = [(1, 1), (3, 3), (5, 2), (1, 7)]
DENSITIES = [0.0, 0.1, 0.5, 1.0]
SAME = {
    (3, 3): (1, 1, 1, 1),
    (5, 3): (2, 1, 2, 1),
    (1, 3): (0, 1, 0, 1),
    (3, 5): (1, 2, 1, 2),
}  # padding that keeps sizes


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


def sweep(net, shape):
    """Convolutions of a tensor of `shape`: all geometries, groups and densities taking turns; with their weights."""
    channels = shape[0]
    turns = itertools.cycle(itertools.product([1, 2, channels], DENSITIES))
    for (kernel, attributes), (group, density) in zip(geometries(*shape[1:]), turns, strict=False):
        weight = net.weights(channels + group * (group == 2), channels // group, *kernel, density=density)
        weight = weight[: len(weight) // group * group]
        if density == 0.5:
            weight[0] = 0  # an empty row
            weight[-1] = 1  # a full one
        yield weight, attributes | {"group": group}
    halved = {"strides": (2, 2), "pads": SAME[3, 3], "dilations": (1, 1)}
    yield net.weights(channels, 1, 3, 3, density=0.8), halved | {"group": channels}
    for (kernel, pads), stride in itertools.product(SAME.items(), [1, 2]):  # what the kernels taps and columns suit
        weight = net.weights(channels, channels, *kernel, density=0.8)
        yield weight, {"strides": (stride, stride), "pads": pads, "dilations": (1, 1), "group": 1}


def corners(plane):
    """Attributes of a MaxPool from WHOLE to a plane: each pixel is the largest of up to four that lie far apart."""
    steps = [whole - size for whole, size in zip(WHOLE, plane, strict=True)]
    return {"kernel_shape": [1 + (step > 0) for step in steps], "dilations": [max(1, step) for step in steps]}


def largest_of_corners(images, plane):
    (height, width), (down, right) = plane, [whole - size for whole, size in zip(WHOLE, plane, strict=True)]
    return np.max([images[..., y : y + height, x : x + width] for y in {0, down} for x in {0, right}], axis=0)


def append_sweep(net, source, images):
    """Appends all convolutions of `source`, whose values are `images`; their outputs, and what these must hold."""
    outputs, expected = [], []
    for weight, attributes in sweep(net, images.shape[1:]):
        bias = net.vector(len(weight))
        outputs.append(net.add("Conv", source, net.constant(weight), net.constant(bias), **attributes))
        expected.append(convolve(images, weight, bias, **attributes).reshape(len(images), -1))
    return outputs, expected


def computed(path, folder, images, expected, **options):
    """What the compiled network computes, in pieces as those of `expected`."""
    folder.mkdir(exist_ok=True)
    export_native(path, folder, options=Options(images=2, block_bytes=8192, **options))
    got = answers(folder, images, threads=2, flags=("-O1", "-march=native"))
    return np.split(got, np.cumsum([e.shape[1] for e in expected])[:-1], axis=1)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of all planes; its images, and each output's plane, node and values."""
    folder, net = tmp_path_factory.mktemp("kernels"), Net(CHANNELS, *WHOLE)
    outputs, cases, images = [], [], net.images(3)
    for plane in PLANES:
        pooled = net.add("MaxPool", "input", **corners(plane))
        found, expected = append_sweep(net, pooled, largest_of_corners(images, plane))
        outputs += found
        cases += [(plane, name, values) for name, values in zip(found, expected, strict=True)]
    return net.save(folder / "model.onnx", *outputs), images, cases


@pytest.fixture(scope="module", params=[None, "sparse", "dense"], ids=["chosen", "sparse", "dense"])
def results(request, network):
    """The network compiled with kernels of one family: values beside those that are expected, by plane."""
    path, images, cases = network
    got = computed(path, path.parent / str(request.param), images, [case[2] for case in cases], kernel=request.param)
    by_plane = {plane: [] for plane in PLANES}
    for (plane, name, expected), values in zip(cases, got, strict=True):
        by_plane[plane].append((name, expected, values))
    return by_plane


@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_convolutions_match_loops_over_taps(plane, results):
    assert len(results[plane]) > 5
    for name, expected, values in results[plane]:
        assert np.abs(values - expected).max() < 2e-5, name


@pytest.mark.parametrize("plane", [(8, 8), (16, 16), (17, 32)], ids=str)
def test_convolutions_of_the_network_s_own_input_match_loops_over_taps(plane, tmp_path):
    """The first operator writes the planes that they read in place."""
    net = Net(CHANNELS, *plane)
    images = net.images(3)
    outputs, expected = append_sweep(net, "input", images)
    path = net.save(tmp_path / "model.onnx", *outputs)
    for values, right in zip(computed(path, tmp_path, images, expected), expected, strict=True):
        assert np.abs(values - right).max() < 2e-5
