"""Networks without the channels that do nothing: the same outputs, fewer parameters, and nothing idle left."""

import dataclasses
import json

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.settings import PruningConfig
from robust_edge_exporters.bundle import export_bundle
from robust_edge_exporters.compaction.compact import compact, share_of_two_four
from robust_edge_exporters.compaction.dependencies import channel_groups
from robust_edge_exporters.compaction.in_blocks import weights_in_blocks, whole_blocks
from robust_edge_exporters.dense_baseline import with_dense_baseline
from robust_edge_exporters.target import target_named
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.bench.latency import Contender
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError
from tests.traced import traced

SHAPE = (3, 8, 8)


def zoo(arch):
    """With batch-norms far from the identity, so that a channel of zeros becomes some constant."""
    torch.manual_seed(0)
    classes = tuple("0123456789")
    model = build_model(ModelSpec(arch=arch, shape=SHAPE, classes=classes, mean=(0.4,) * 3, std=(0.3,) * 3))
    return unsettled(model)


def unsettled(model):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def pruned(model, keep, **settings):
    weights = prunable_parameters(model)
    scheme = PruningConfig.from_plain(settings).build(model, SHAPE)
    support = scheme.support(weights, keep)
    support |= scheme.support_beside(support)
    with torch.no_grad():
        for name, mask in support.items():
            model.get_parameter(name).mul_(mask)
    return model


def compacted(model, shape=SHAPE, **settings):
    return compact(model, shape, sparsity_of(prunable_parameters(traced(model, shape))), **settings)


def same(left, right, shape=SHAPE):
    images = torch.rand(50, *shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected, found = left(images), right(images)
    assert float((found - expected).abs().max()) <= 1e-5 * max(float(expected.abs().max()), 1e-3)
    assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "resnet34", "mobilenet_v2"])
def test_filter_pruned_networks_shrink_to_what_was_kept(arch):
    model = pruned(zoo(arch), 0.1, scheme="filter")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counts = sparsity_of(prunable_parameters(model))
    found = compacted(model)
    same(model, found.model)
    assert found.sparsity.weights == found.sparsity.nonzero == counts.nonzero
    assert found.record.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.record.parameters_left == sum(parameter.numel() for parameter in found.model.parameters())
    assert found.record.parameters_left < 0.11 * found.record.parameters
    assert found.record.macs_left < 0.2 * found.record.macs
    assert found.record.bytes_left == 4 * found.record.parameters_left
    assert f"parameters {found.record.parameters} → {found.record.parameters_left}" in found.notes[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_idle_channels_of_an_irregular_network_go(arch):
    model = zoo(arch)
    weights = prunable_parameters(model)
    with torch.no_grad():
        for weight in weights.values():
            if weight.shape[1] > 3:
                weight[::3] = 0  # nothing writes them
                weight[:, 1::5] = 0  # nothing reads them
    found = compacted(model)
    assert found.record.channels > 100
    same(model, found.model)


def test_a_network_that_uses_everything_is_exported_as_it_is():
    model = zoo("small_cnn")
    counts = sparsity_of(prunable_parameters(model))
    found = compact(model, SHAPE, counts)
    assert found.model is model
    assert found.sparsity is counts
    assert (found.record, found.notes) == (None, ())


class Chain(nn.Module):
    """One channel's way: written, normalised, rectified, read by a convolution."""

    def __init__(self, padding, constant):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 5, 3, padding=padding, bias=False)
        self.norm2 = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)
        unsettled(self)
        with torch.no_grad():
            self.first.weight[2] = 0
            scale = self.norm.weight[2] / torch.sqrt(self.norm.running_var[2] + self.norm.eps)
            self.norm.bias[2] = constant + scale * self.norm.running_mean[2]

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.norm2(self.second(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("padding", "constant", "goes"),
    [(1, 0.7, False), (0, 0.7, True), (1, -0.7, True), (0, -0.7, True), ("same", 0.7, False)],
)
def test_a_constant_becomes_a_bias_where_no_border_is_padded(padding, constant, goes):
    """Its negative is rectified to zero, which adds nothing wherever it stands."""
    torch.manual_seed(1)
    model = Chain(padding, constant)
    found = compacted(model)
    same(model, found.model)
    assert (found.record is not None) == goes
    assert found.model.first.out_channels == (5 if goes else 6)
    if goes:
        assert (found.model.second.bias is not None) == (constant > 0)


def test_a_layer_that_does_nothing_at_all_keeps_one_channel():
    torch.manual_seed(0)
    model = Chain(1, -0.5)
    with torch.no_grad():
        model.first.weight.zero_()
        model.norm.bias.fill_(-3.0)
    found = compacted(model)
    same(model, found.model)
    assert found.model.first.out_channels == 1


class FixedWidth(nn.Module):
    """Its width stands in its code, as a number."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.head = nn.Linear(6 * 36, 4)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)).reshape(-1, 6 * 36))


def test_a_network_that_cannot_lose_channels_stays_whole_and_says_why():
    torch.manual_seed(0)
    model = FixedWidth().eval()
    with torch.no_grad():
        model.first.weight[0] = 0
        model.first.bias[0] = -1
    found = compacted(model)
    assert found.model is model
    assert found.record is None
    assert found.notes[0].startswith("Channels without effect were not removed: the network cannot be traced, or")


class Mixed(nn.Module):
    """Stem, an addition, a depthwise layer, a concatenation, biases here and there, pixels in a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 3, 1)
        self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.norm2 = nn.BatchNorm2d(3)
        self.outer = nn.Conv2d(3, 4, 1, bias=False)
        self.side = nn.Conv2d(4, 3, 2, stride=2)
        self.other = nn.Conv2d(4, 2, 2, stride=2, bias=False)
        self.norm3 = nn.BatchNorm2d(2)
        self.merge = nn.Conv2d(5, 3, 1)
        self.hidden = nn.Linear(3 * 4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = nn.functional.relu6(self.norm2(self.depthwise(torch.relu(self.inner(x)))))
        x = torch.relu(x + self.outer(y))
        x = torch.cat([torch.relu(self.side(x)), torch.relu(self.norm3(self.other(x)))], 1)
        return self.head(torch.relu(self.hidden(torch.relu(self.merge(x)).flatten(1))))


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.integers(0, 10**6), st.floats(0.2, 0.95), st.floats(0, 0.6), st.floats(0, 0.6))
def test_any_mask_leaves_the_outputs_as_they_were(seed, zeros, rows, columns):
    """Random weights, rows and columns are zero; afterwards no channel is unread."""
    torch.manual_seed(seed)
    model = traced(unsettled(Mixed()), (2, 4, 4))
    for weight in prunable_parameters(model).values():
        weight.data *= torch.rand_like(weight) > zeros
        weight.data[torch.rand(len(weight)) < rows] = 0
        weight.data[:, torch.rand(weight.shape[1]) < columns] = 0
    found = compacted(model, (2, 4, 4))
    assert not any("left in" in note for note in found.notes)
    same(model, found.model, (2, 4, 4))
    for group in channel_groups(found.model, (2, 4, 4)):
        readers = [part for part in group.slices if part.dim == 1]
        if group.removable and group.channels > 1:
            read = torch.zeros(group.channels, dtype=torch.bool)
            for part in readers:
                lines = found.model.get_parameter(part.parameter).detach().transpose(0, 1).flatten(1).any(1)
                read[part.channel[lines[part.index]]] = True
            assert read.all()


def test_two_four_stays_whole_where_sparse_tensor_cores_run_it():
    """Other targets take the smaller network."""
    model = pruned(zoo("small_cnn"), 0.5, scheme="nm")
    with torch.no_grad():
        model.get_parameter("network.6.weight")[:, 5] = 0
    assert share_of_two_four(model) > 0.9
    whole, small = compacted(model, sparse_tensor_cores=True), compacted(model)
    assert whole.model is model
    assert "2:4 pattern" in whole.notes[0]
    assert small.record.channels == 1
    assert share_of_two_four(small.model) < 0.5
    filtered = pruned(zoo("small_cnn"), 0.1, scheme="filter")
    assert compacted(filtered, sparse_tensor_cores=True).record is not None


@pytest.fixture(scope="module")
def half_idle(request_for):
    """The exporters' test network with half of its inner channels gone."""
    from tests.exporters.conftest import network

    torch.manual_seed(0)
    model = unsettled(network())
    with torch.no_grad():
        model.second.weight[:, 4:] = 0
    return model, request_for(model)


class Blocks(nn.Module):
    """Outputs of the second layer read channels 8 to 11 or 12 to 15; nothing writes channels 4 to 7, and 9."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)
        with torch.no_grad():
            self.first.weight[[4, 5, 6, 7, 9]] = 0
            self.second.weight[:, :8] = 0
            self.second.weight[::2, 8:12] = 0
            self.second.weight[1::2, 12:] = 0

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize(("block", "removed", "blocks"), [(1, 9, 12), (4, 8, 8)])
def test_blocks_of_four_channels_stay_whole_where_kernels_take_them_at_once(block, removed, blocks):
    model = traced(Blocks().eval().requires_grad_(False), SHAPE)
    found = compacted(model, block=block)
    same(model, found.model)
    assert found.record.channels == removed
    assert weights_in_blocks([found.model.second.weight], 4) == 4 * blocks


@hypothesis.given(st.integers(1, 13), st.integers(1, 5), st.integers(0, 2**31))
def test_weights_in_blocks_as_a_loop_counts_them(inputs, size, seed):
    values, chosen = torch.rand(2, 3, inputs, 2, 1, generator=torch.Generator().manual_seed(seed))
    weight = values * (chosen > 0.7)
    expected = sum(
        size * bool(weight[o, i : i + size, y, 0].any())
        for o in range(3)
        for y in (0, 1)
        for i in range(0, inputs, size)
    )
    assert weights_in_blocks([weight], size) == expected
    idle = weight[0, :, 0, 0] == 0
    whole = [bool(idle[i // size * size : (i // size + 1) * size].all()) for i in range(inputs)]
    assert whole_blocks(idle, size).tolist() == whole


def test_a_bundle_holds_the_smaller_network_and_says_so(half_idle, tmp_path):
    _, request = half_idle
    exported = export_bundle(request, tmp_path / "small")
    whole = export_bundle(dataclasses.replace(request, compact=False), tmp_path / "whole")
    record = exported.manifest.compaction
    assert record.channels == 4
    assert record.parameters - record.parameters_left == 4 * 9 + 4 * 2 + 8 * 4 * 9
    assert record.macs_left < record.macs
    assert exported.manifest.sparsity.weights == request.sparsity.weights - 4 * 9 - 8 * 4 * 9
    assert exported.manifest.size.dense == whole.manifest.size.dense == 4 * request.sparsity.weights
    assert exported.manifest.size.artifact < whole.manifest.size.artifact
    assert exported.parity.argmax_agreement == 1.0
    assert whole.manifest.compaction is None
    stored = json.loads((tmp_path / "small" / "manifest.json").read_text())
    assert stored["compaction"]["channels"] == 4
    assert open_bundle(tmp_path / "small").manifest == exported.manifest
    assert "4 channels without effect were removed" in (tmp_path / "small" / "README.md").read_text()


def test_a_network_that_lost_channels_is_no_dense_baseline(half_idle, tmp_path):
    _, request = half_idle
    small = open_bundle(export_bundle(request, tmp_path / "small").path)
    with (
        pytest.raises(InputError, match="no dense bundle to compare with"),
        with_dense_baseline([Contender("s", small)]),
    ):
        pass


@pytest.mark.parametrize(("scheme", "keep"), [("nm", 0.5), ("irregular", 0.3)])
def test_tensorrt_is_told_of_two_four_and_of_irregular_zeros(request_for, tmp_path, scheme, keep):
    from tests.exporters.conftest import SHAPE as IMAGE
    from tests.exporters.conftest import network

    torch.manual_seed(0)
    model = traced(unsettled(network()), IMAGE)
    weights = prunable_parameters(model)
    support = PruningConfig.from_plain({"scheme": scheme}).build(model, IMAGE).support(weights, keep)
    with torch.no_grad():
        for name, mask in support.items():
            model.get_parameter(name).mul_(mask)
    request = request_for(model, target=target_named("jetson-gpu", "6.2"))
    manifest = export_bundle(request, tmp_path / "bundle").manifest
    flags = json.loads((tmp_path / "bundle" / "engine.json").read_text())["flags"]
    if scheme == "nm":
        assert "SPARSE_WEIGHTS" in flags
        assert any("100% of the weights that can be 2:4 are, checked" in note for note in manifest.notes)
    else:
        assert "SPARSE_WEIGHTS" not in flags
        assert any("TensorRT will not run this network faster for its zeros" in note for note in manifest.notes)
