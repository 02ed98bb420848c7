"""Networks that are broken in a known way raise their flag, and sound ones raise none."""

import dataclasses

import pytest
import torch
from torch import nn

from robust_edge.attacks.autoattack import AutoAttack
from robust_edge.attacks.carlini_wagner import CarliniWagner
from robust_edge.attacks.curve import Curve
from robust_edge.attacks.fgsm import Fgsm
from robust_edge.attacks.pgd import Pgd
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import accuracy
from robust_edge.evaluation.audit import (
    Audit,
    audit_memory,
    audit_model,
    audit_oblivious,
    audit_result,
    audit_steps,
)
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.outcome import AttackResult, StageResult
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.flags import EVALUATE, VALIDITY_FLAGS, Check

NAMES = {flag.name for flag in VALIDITY_FLAGS if EVALUATE in flag.raised_by}


class Behind(nn.Module):
    """A network and something done to its logits."""

    def __init__(self, inner, after):
        super().__init__()
        self.inner, self.after = inner, after

    def forward(self, x):
        return self.after(self.inner(x))


class AlwaysTraining(nn.Module):
    """Statistics of the batch whatever mode is asked for: no module has its flag up."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        for module in self.inner.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = True
        try:
            return self.inner(x)
        finally:
            self.inner.eval()


class Noisy(nn.Module):
    """A smoothing defence: fresh noise on every look."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x + 0.05 * torch.randn_like(x))


class Shattered(nn.Module):
    """Quantised pixels: the predictions are right, and every gradient is zero."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner((x * 16).round() / 16)


BROKEN = {
    "randomised": Noisy,
    "saturated_gradient": lambda inner: Behind(inner, lambda z: 1e4 * z),
    "zero_gradient": lambda inner: Behind(inner, lambda z: z.round()),
    "rounded_logits": lambda inner: Behind(inner, lambda z: z + (z.round() - z).detach()),
    "softmax_output": lambda inner: Behind(inner, lambda z: z.softmax(1)),
    "training_mode": lambda inner: inner.train(),
    "batch_dependent": AlwaysTraining,
    "non_finite": lambda inner: Behind(inner, lambda z: z / (z.argmax(1, keepdim=True) != 3)),
    "black_box_beats_gradients": Shattered,
    "survives_large_eps": Shattered,
    "nothing_right": lambda inner: Behind(inner, lambda z: -z),
}


@pytest.fixture
def images(judged):
    return judged[1]


@pytest.mark.parametrize("flag", BROKEN)
def test_a_known_broken_network_raises_its_flag(judged, images, flag):
    audit = audit_model(BROKEN[flag](judged[0]), images, threat=Threat(0.15, "linf"))
    assert flag in audit.flags
    assert not audit.clean


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("linf", 0.1), ("l2", 0.5)])
def test_a_sound_network_raises_none(judged, images, norm, eps):
    audit = audit_model(judged[0], images, threat=Threat(eps, norm))
    assert audit.flags == ()
    assert audit.clean
    assert audit.images >= 20
    assert {check.name for check in audit.checks} <= {
        flag.name for flag in VALIDITY_FLAGS if EVALUATE in flag.raised_by
    }


def test_more_steps_that_help_are_found(judged, images):
    """Off the clean image's grid the slope points the other way: the first step fools, the later ones undo it."""
    inner = judged[0]

    class Trap(nn.Module):
        def forward(self, x):
            moved = ((x * 16).round() - x * 16).abs().flatten(1).amax(1, keepdim=True) > 0.02
            logits = inner(x)
            return torch.where(moved, 2 * logits.detach() - logits, logits)

    audit = audit_model(Trap(), images, threat=Threat(0.15, "linf"))
    check = next(check for check in audit.checks if check.name == "more_steps_help_the_model")
    assert check.raised, check.detail


def test_an_audit_leaves_the_network_as_it_was(judged, images):
    model = judged[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    audit_model(model, images, threat=Threat(0.1, "linf"))
    assert not model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_audit_probes_in_batches_and_answers_the_same(judged, images):
    seen, model = [], judged[0]
    watching = Behind(model, lambda z: (seen.append(len(z)), z)[1]).eval()
    small = audit_model(watching, images, threat=Threat(0.1, "l2"), batch_size=16)
    assert max(seen) == 16
    assert audit_model(watching, images, threat=Threat(0.1, "l2")) == small
    assert max(seen) == 60


def test_no_images_are_no_clean_audit(judged, images):
    empty = Split(images.images[:0], images.labels[:0], images.levels)
    with pytest.raises(InputError, match="no images"):
        audit_model(judged[0], empty, threat=Threat(0.1, "linf"))
    assert not Audit(0, ()).clean


def result_of(*stages):
    return AttackResult(
        attacked="a",
        judged="a",
        attack="x",
        title="X",
        threat=Threat(0.1),
        seed=0,
        batch_size=10,
        clean=accuracy(900, 1000),
        stages=stages,
        robust=stages[-1].cumulative,
        positions=(),
        outcomes=(),
    )


def stage(name, attacked, broken, outside=0):
    return StageResult(
        name=name,
        settings={},
        attacked=attacked,
        broken=broken,
        outside=outside,
        works_with="logits" if name == "square" else "gradients",
        cumulative=accuracy(attacked - broken, 1000),
    )


def flags(result, attack=AutoAttack()):  # noqa: B008 - frozen
    return {check.name for check in audit_result(result, attack) if check.raised}


def test_square_that_breaks_what_gradients_left_is_flagged_above_two_in_a_thousand():
    assert flags(result_of(stage("apgd-ce", 900, 400), stage("square", 500, 2))) == set()
    assert flags(result_of(stage("apgd-ce", 900, 400), stage("square", 500, 3))) == {"black_box_beats_white_box"}


def test_an_attack_on_nothing_and_one_that_leaves_its_ball_are_flagged():
    assert flags(result_of(stage("pgd", 0, 0))) == {"nothing_attacked"}
    assert flags(result_of(stage("pgd", 100, 10, outside=50))) == {"left_the_ball"}


def test_few_steps_are_flagged():
    result = result_of(stage("x", 900, 1))
    assert flags(result, Pgd(steps=9)) == flags(result, CarliniWagner(steps=9)) == {"few_steps"}
    assert flags(result, Pgd(steps=10)) == flags(result, CarliniWagner(steps=10)) == set()
    assert audit_steps(Fgsm()) == audit_steps(AutoAttack()) == ()
    assert [check.raised for check in audit_steps(Curve(steps=9))] == [True]
    assert [check.raised for check in audit_steps(Curve(steps=10))] == [False]


def test_images_of_others_that_beat_its_own_gradients_are_flagged():
    own = result_of(stage("pgd", 900, 1))
    adaptive = dataclasses.replace(own, clean=accuracy(5, 5), outcomes=("robust", "robust", "robust", "pgd", "clean"))
    weaker = dataclasses.replace(adaptive, outcomes=("pgd", "robust", "robust", "robust", "clean"))
    other = dataclasses.replace(adaptive, outcomes=("robust", "robust", "pgd", "robust", "clean"))
    one, two = audit_oblivious(adaptive, [weaker]), audit_oblivious(adaptive, [weaker, other])
    assert (one.raised, two.raised) == (False, True), "one image may be chance"
    assert "break 2 image(s)" in two.detail


def test_more_memory_than_was_promised_is_flagged():
    within = Memory(batch_size=1, image_bytes=1, before_bytes=10, bound_bytes=20, peak_bytes=20)
    beyond = dataclasses.replace(within, peak_bytes=21)
    assert (audit_memory(within).raised, audit_memory(beyond).raised) == (False, True)


def test_an_unasked_question_raises_nothing_and_passes_nothing():
    audit = Audit(1, (Check("a", raised=None, detail=""), Check("b", raised=False, detail="")))
    assert audit.clean
    assert audit.with_checks((Check("c", raised=True, detail=""),)).flags == ("c",)


def test_every_flag_of_an_evaluation_is_in_the_table():
    checks = [audit_memory(Memory(batch_size=1, image_bytes=1, before_bytes=1, bound_bytes=2, peak_bytes=2))]
    checks += audit_result(result_of(stage("pgd", 900, 1), stage("square", 899, 1)), Pgd())
    named = {check.name for check in checks} | set(BROKEN) | {"transfer_beats_white_box", "more_steps_help_the_model"}
    assert named == NAMES
