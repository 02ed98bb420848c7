"""An artifact whose graph has no gradient, in a bundle without a run: the verdict comes from the black box."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from robust_edge.verification.modes.whitebox import whitebox
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.csr import csr_twin
from robust_edge.verification.twins.lazy import LazyTwin, refuse_no_gradient
from robust_edge.verification.twins.twin import TwinError
from robust_edge.verification.verify import verify_bundle
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.judge import FAIL, PASS
from robust_edge_runtimes.verdict.measurement import LOGITS, Budget
from robust_edge_runtimes.verdict.subject import golden_images

onnx = pytest.importorskip("onnx", reason="the bundle is written with onnx")
pytest.importorskip("onnxruntime", reason="verification runs the artifact on onnxruntime")

SETTINGS = VerifySettings(modes=("whitebox",), options={"queries": 50})
WIDE = ("--max-clean-drop", 100, "--max-robust-drop", 100)


@pytest.fixture(scope="module")
def choosing(write_bundle, linear, tmp_path_factory):
    """The linear classifier with an operator that has no gradient, and no effect."""
    program = linear.program(outputs="exact")
    graph, make = program.graph, onnx.helper
    graph.initializer.append(onnx.numpy_helper.from_array(linear.bias * 0, "nothing"))
    graph.node.extend(
        [
            make.make_node("Hardmax", ["exact"], ["largest"], name="choosing"),
            make.make_node("Mul", ["largest", "nothing"], ["none"]),
            make.make_node("Add", ["exact", "none"], ["logits"]),
        ]
    )
    graph.output[0].name = "logits"
    return write_bundle(tmp_path_factory.mktemp("choosing") / "bundle", program=program)


def test_the_black_box_attacks_in_place_of_the_twin(choosing):
    verdict = verify_bundle(open_bundle(choosing), None, Budget(100, 100), SETTINGS)
    (mode,) = verdict.modes
    assert (mode.mode, mode.works_with, mode.twin) == ("whitebox", LOGITS, None)
    assert (mode.attack.name, mode.attack.steps) == ("square", 50)
    assert mode.images == 60
    assert mode.artifact_robust < mode.artifact_clean  # it was attacked, not passed over
    assert verdict.outcome == FAIL
    (reason,) = verdict.reasons
    assert reason.startswith("no_twin: ")
    assert "Hardmax" in reason
    assert "'choosing'" in reason


def test_allowed_it_is_a_note(choosing):
    verdict = verify_bundle(open_bundle(choosing), None, Budget(100, 100, ("no_twin",)), SETTINGS)
    assert (verdict.outcome, verdict.reasons) == (PASS, ())
    assert any(note.startswith("allowed no_twin") for note in verdict.notes)


@pytest.mark.parametrize(("allowed", "code"), [((), 1), (("--allow", "no_twin"), 0)])
def test_exit_codes(allowed, code, choosing, cli, tmp_path):
    out = tmp_path / "verify.json"
    mode = ("--mode", "whitebox", "--queries", 20, "--seed", 1, "-o", out)
    result = cli("verify", choosing, *mode, *WIDE, *allowed)
    assert result.exit_code == code, result.output
    assert json.loads(out.read_text())["outcome"] == ("fail" if code else "pass")


def test_undecided_is_an_exit_code_of_its_own(choosing, cli):
    """60 images cannot show that clean accuracy loses no more than one point."""
    options = ("--mode", "whitebox", "--queries", 20, "--seed", 1, "--max-robust-drop", 100)
    assert cli("verify", choosing, *options, "--allow", "no_twin").exit_code == 5


def test_a_format_without_twins_is_refused_with_the_way_out(opened, golden, Fake, linear):
    artifact = dataclasses.replace(opened.manifest.artifact, format="native")
    bundle = dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, artifact=artifact))
    model = Fake(bundle.manifest, linear.logits).open()
    subject = HostSubject(
        bundle, golden, model, 0.1, *golden_images(golden, None, 1), twin=LazyTwin(bundle, golden, model)
    )
    with pytest.raises(InputError, match=r"'native' in fp32 have no twin.*give the bundle.s run as `run`"):
        whitebox(subject, SETTINGS)


class Rounding(torch.nn.Module):
    """Signs of differences of pixels, with their own gradient (zero) or that of the differences."""

    def __init__(self, straight_through):
        super().__init__()
        self.straight_through = straight_through

    def forward(self, x):
        y = x.flatten(1)[:, :10] - 0.5
        return y + (y.sign() - y).detach() if self.straight_through else y.sign()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("straight_through", [True, False])
def test_torchscript_whose_rounding_leaves_no_gradient_has_no_twin(straight_through, golden, tmp_path):
    traced = torch.jit.trace(Rounding(straight_through), torch.rand(2, *golden.clean.shape[1:]))
    torch.jit.save(traced, tmp_path / "model.ts")
    twin = csr_twin(SimpleNamespace(artifact_path=tmp_path / "model.ts"))
    assert twin.rounding == ("aten::sign",)
    if straight_through:
        refuse_no_gradient(twin, golden)
    else:
        with pytest.raises(TwinError, match="no gradient: that of aten::sign is zero; allow the flag no_twin"):
            refuse_no_gradient(twin, golden)
