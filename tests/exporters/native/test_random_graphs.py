"""Random graphs of supported operators compute what ONNX Runtime computes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_edge_exporters.native import Options, export_native
from tests.exporters.native.networks import Net, answers, reference

SIDES = st.sampled_from([1, 2, 4, 5, 7, 8, 16, 18])
CHOICES = st.lists(st.integers(0, 10**6), min_size=4, max_size=24)


class Growth:
    """Adds nodes to a net; each choice is an integer that hypothesis can shrink."""

    def __init__(self, net, choices):
        self.net, self.choices = net, iter(choices)
        self.tensors = [("input", net.shape)]

    def pick(self, options):
        return options[next(self.choices, 0) % len(options)]

    def grow(self):
        source, shape = self.pick(self.tensors)
        convolve = [self.conv, self.conv, self.conv, self.bottleneck, self.bottleneck]
        step = self.pick([*convolve, self.function, self.pool, self.join, self.scale])
        name, grown = step(source, shape)
        self.tensors.append((name, grown))

    def conv(self, source, shape):
        channels, height, width = shape
        kernel = (min(self.pick([1, 3, 5]), height + 2), min(self.pick([1, 3, 2]), width + 2))
        group = channels if self.pick([0, 0, 1]) else 1
        outputs = channels if group > 1 else self.pick([1, 4, 6, 13])
        stride, density = self.pick([1, 1, 2]), self.pick([0.1, 0.4, 1.0])
        weight = self.net.weights(outputs, channels // group, *kernel, density=density)
        name = self.net.conv(source, weight, group=group, pads=(1, 1, 1, 1), strides=(stride, stride))
        size = [(n + 2 - k) // stride + 1 for n, k in zip((height, width), kernel, strict=True)]
        return name, (outputs, *size)

    def bottleneck(self, source, shape):
        """A 1x1 convolution, a depthwise one with any residual, and perhaps means of its planes, or a mean of means."""
        channels, height, width = shape
        outputs, (side, stride) = self.pick([channels, 4, 9]), self.pick([(3, 1), (3, 2), (5, 1)])
        wide = self.net.conv(source, self.net.weights(outputs, channels, 1, 1, density=self.pick([0.3, 0.7])))
        if self.pick([0, 1]):
            wide, _ = self.function(wide, (outputs, height, width))
        pads, weight = (side // 2,) * 4, self.net.weights(outputs, 1, side, side, density=0.5)
        read, other = (wide, wide), None
        same = [name for name, found in self.tensors if found == (outputs, height, width)]
        if stride == 1 and same and self.pick([0, 1]):
            other = self.pick(same)
            read = self.pick([(wide, other), (other, wide)])  # the residual may be the 1x1 convolution's output
        deep = self.net.conv(read[0], weight, group=outputs, pads=pads, strides=(stride, stride))
        deep = deep if other is None else self.net.add("Add", deep, read[1])
        size = (outputs, (height - 1) // stride + 1, (width - 1) // stride + 1)
        for _ in range(self.pick([0, 0, 1, 2])):
            deep, size = self.net.add("GlobalAveragePool", deep), (outputs, 1, 1)
        return deep, size

    def function(self, source, shape):
        kind = self.pick(["Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSwish", "Identity"])
        bounds = [self.net.constant(np.float32(x)) for x in (-0.5, 1.0)] if kind == "Clip" else []
        return self.net.add(kind, source, *bounds), shape

    def pool(self, source, shape):
        kind = self.pick(["MaxPool", "AveragePool"])
        name = self.net.add(kind, source, kernel_shape=(2, 2), strides=(2, 2), pads=(1, 1, 1, 1))
        return name, (shape[0], shape[1] // 2 + 1, shape[2] // 2 + 1)

    def join(self, source, shape):
        other, _ = self.pick([item for item in self.tensors if item[1] == shape])
        kind = self.pick(["Add", "Mul", "Concat"])
        if kind == "Concat":
            return self.net.add(kind, source, other, axis=1), (2 * shape[0], *shape[1:])
        return self.net.add(kind, source, other), shape

    def scale(self, source, shape):
        value = self.net.constant(self.net.vector(shape[0]).reshape(1, -1, 1, 1))
        return self.net.add(self.pick(["Add", "Sub", "Mul"]), source, value), shape


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 5), SIDES, SIDES),
    CHOICES,
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0, 10**9]),
)
def test_random_graphs_match_onnx_runtime(shape, choices, threads, images, join_bytes):
    net = Net(*shape, seed=len(choices))
    growth = Growth(net, choices)
    for _ in range(1 + len(choices) // 4):
        growth.grow()
    with tempfile.TemporaryDirectory() as folder:
        path = net.save(Path(folder) / "model.onnx", *[name for name, _ in growth.tensors[-2:]])
        batch = net.images(5)
        export_native(path, Path(folder), options=Options(images=images, block_bytes=4096, join_bytes=join_bytes))
        got, expected = answers(Path(folder), batch, threads=threads, flags=("-O0",)), reference(path, batch)
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
