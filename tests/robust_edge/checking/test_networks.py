"""Networks of many kinds: what `check` says of them holds for training and export."""

import re
from pathlib import Path

import pytest
import torch

from robust_edge.checking.check import check_network
from robust_edge.config.export import GoldenSettings
from robust_edge.export import export_run
from robust_edge.models import ModelSpec, build_model
from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.errors import ExportError
from tests.robust_edge.checking.small_networks import OUTCOMES

WORKING = {name: lacks for name, lacks in OUTCOMES.items() if isinstance(lacks, dict)}
TARGETS = ("x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def spec_of(name):
    classes = tuple("0123456789")
    return ModelSpec(arch=f"small_networks:{name}", shape=(1, 8, 8), classes=classes, mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize("name", WORKING)
def test_a_network_is_pruned_and_exported_as_check_says(name, tiny, tmp_path):
    torch.manual_seed(0)
    spec = spec_of(name)
    found = check_network(build_model(spec), spec.shape, [target_named(target) for target in TARGETS])
    for answer in found.targets:
        assert answer.problem.partition(" ")[0] == WORKING[name].get(answer.target, "")
    assert not found.unprunable
    config = tiny({"arch": spec.arch, "training.epochs": 1, "pruning.keep": 0.6})
    run = open_run((compress(config, tmp_path / "run"), tmp_path / "run")[1])
    checkpoint = run.checkpoint()
    assert [layer.name for layer in checkpoint.sparsity.layers] == sorted(found.layers, key=_in_order(checkpoint))
    assert checkpoint.sparsity.nonzero == round(0.6 * found.weights)
    # TorchScript's exporter for ONNX takes a tenth of the time of the newer one, which `check` has used
    working = [answer.target for answer in found.targets if answer.works]
    for target in (target_named("x86-cpu").with_opset(17), target_named("x86-cpu-csr")):
        if target.name not in working:
            with pytest.raises(ExportError, match=WORKING[name][target.name]):
                export_run(run, target, tmp_path / target.name, golden=GoldenSettings(images=20, steps=1))
            continue
        exported = export_run(run, target, tmp_path / target.name, golden=GoldenSettings(images=20, steps=1))
        assert exported.parity.argmax_agreement == 1
        if exported.manifest.compaction is None:
            assert counts(exported.manifest.sparsity) == counts(checkpoint.sparsity)


def counts(sparsity):
    """Of each layer, as verify compares them."""
    return sorted((layer.weights, layer.nonzero) for layer in sparsity.layers)


def _in_order(checkpoint):
    return [layer.name for layer in checkpoint.sparsity.layers].index


def test_a_network_that_cannot_be_differentiated_is_checked_without_a_traceback():
    """What trains it or attacks it says so; here the file computes what the network does."""

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def forward(self, x):
            return self.layer(Forward.apply(x.flatten(1)))

    (answer,) = check_network(Network().eval(), (1, 8, 8), [target_named("x86-cpu-csr")]).targets
    assert answer.problem == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("computed_kernel", "computes a weight from network.kernel.*parametriz"),
        ("squeezed", r"gives \(10,\) for 1 image, expected \(1, 10\).*squeeze"),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_one_line_before_training(name, says, refused, tmp_path):
    line = refused("compress", "--arch", f"small_networks:{name}", "--eps", 0.1, "-o", tmp_path / "run")
    assert re.search(says, line)
    assert not (tmp_path / "run").exists()


def test_a_network_that_branches_on_the_image_is_refused_before_training(refused, tmp_path):
    options = ("--eps", 0.1, "-o", tmp_path / "run")
    line = refused("compress", "--arch", "small_networks:branching", *options, code=1)
    assert re.search(r"cannot be exported to any target.*line \d+ of .*small_networks.py: .*data-dependent", line)
    assert not (tmp_path / "run").exists()


def test_a_conversion_that_computes_something_else_is_told_for_every_target_that_is_made_from_it():
    """torch's exporter writes a pool without its `divisor_override`, and says nothing."""
    spec = spec_of("divided")
    found = check_network(build_model(spec), spec.shape, [target_named(target) for target in TARGETS])
    told = ["computes something else" in answer.problem for answer in found.targets]
    assert told == [True, True, False, True]
    assert not found.targets[2].problem


def test_a_network_that_rounding_alone_moves_far_is_named_as_such(monkeypatch):
    """Its logits lie a million from zero, so that float32 leaves them a few digits."""
    monkeypatch.setattr("robust_edge.checking.check.DIFFERENCE", -1.0)
    spec = spec_of(next(iter(WORKING)))
    model = build_model(spec)
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.nn.init.constant_(last.bias, 1e6)
    found = check_network(model, spec.shape, [target_named("x86-cpu-csr")])
    assert re.search(r"off by .* \(relative\)\. The checkpoint is ill-conditioned: ", found.targets[0].problem)


def test_compress_refuses_a_target_that_it_could_not_be_exported_to(refused, tmp_path):
    """In seconds, before anything is trained or written."""
    options = ("--eps", 0.1, "--target", "x86-cpu-csr,x86-cpu-sparse", "-o", tmp_path / "run")
    line = refused("compress", "--arch", "small_networks:mixed", *options, code=1)
    assert re.search("cannot be exported to x86-cpu-sparse: MatMul.*use --target x86-cpu-csr$", line)
    assert "did you mean 'x86-cpu'" in refused("compress", "--target", "x86-cpus", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_integers_that_the_engine_does_not_compute_are_refused_before_training(refused, tmp_path):
    settings = ("--scheme", "block", "--keep", 0.5, "--set", "training.quantize=int8", "--eps", 0, "--epochs", 3)
    line = refused("compress", "--arch", "small_networks:replicated", *settings, "-o", tmp_path / "run", code=1)
    assert re.search("training.quantize int8 cannot train this network: .*Rearrange at node .* in 8 bits", line)
    assert not (tmp_path / "run").exists()


def test_the_answer_names_operator_node_module_and_line_and_a_way_out(cli):
    """The sparse engine has no transposed products."""
    targets = ("--target", "x86-cpu,x86-cpu-sparse")
    result = cli("check", "--arch", "small_networks:mixed", *targets, "-q")
    assert result.exit_code == 1
    dense, sparse = result.output.splitlines()[-2:]
    assert re.fullmatch(r"x86-cpu +fp32  works", dense)
    assert re.search(r"node 'node_\w+' \(.*line \d+ of .*small_networks\.py\).*use --target x86-cpu$", sparse), sparse


def test_fixed_filters_and_unused_layers_are_named(cli):
    result = cli("check", "--arch", "small_networks:blurred", "--target", "x86-cpu-csr", "-q")
    assert result.exit_code == 0, result.output
    assert "left out: network.blur, which is fixed, not a parameter" in result.output
    assert "left out: network.spare.weight, which the image does not reach" in result.output


def test_the_way_out_of_a_computed_weight_is_that_of_compress(cli):
    result = cli("check", "--arch", "small_networks:computed_kernel", "--target", "x86-cpu-csr", "-q")
    assert result.exit_code == 0, result.output
    assert re.search("cannot be pruned: .* from network.kernel, .* make the computation a parametriz", result.output)


def test_one_of_run_and_architecture(refused):
    assert "either a run, an ONNX file or an architecture" in refused("check")


def test_a_shape_without_a_data_set(cli, refused):
    """And without a target: those of x86 CPUs."""
    result = cli("check", "--arch", "small_cnn", "--input-shape", "3x9x7", "-q")
    assert result.exit_code == 0, result.output
    shown = [line.split()[:3] for line in result.output.splitlines() if line.startswith("x86-cpu")]
    assert shown == [
        ["x86-cpu", "fp32", "works"],
        ["x86-cpu-int8", "int8", "works;"],
        ["x86-cpu-csr", "fp32", "works"],
        ["x86-cpu-sparse", "fp32", "works"],
        ["x86-cpu-sparse-int8", "int8", "works;"],
    ]
    assert "3x224x224" in refused("check", "--arch", "small_cnn", "--input-shape", "9x7")
