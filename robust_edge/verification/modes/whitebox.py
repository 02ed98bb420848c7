"""Mode `whitebox`: PGD with the gradients of the artifact's twin; the artifact itself scores every candidate."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.gradients import gradient_checks
from robust_edge.verification.paired_pgd import PairedOutcome, paired_pgd, pgd_settings
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.temperature import attack_by_checkpoint, best_temperature
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.modes.blackbox import blackbox
from robust_edge_runtimes.modes.mode import Progress, part_of
from robust_edge_runtimes.scoring import agreement, relative_error, surest
from robust_edge_runtimes.verdict.checks import saturated_gradient, zero_gradient
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.measurement import GRADIENTS, Candidates, Measurement, Twin

AGREEMENT = {"fp32": 0.999, "fp16": 0.99, "int8": 0.97}
"""Smallest share of equal classes of a twin and its artifact; in 8 bits on the surest half of the images.

A twin that computes the same integers agrees on all images.
"""


def whitebox(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Measurement:
    """Compare the twin with the artifact, choose the temperature that breaks most images, and attack.

    The checkpoint is attacked in the same way with its own gradients. If the artifact's graph has no gradient and
    there is no run, Square is used instead.

    Raises:
        InputError: artifacts of this format have no twin, and there is no run.
    """
    start, drawn, clean = time.monotonic(), subject.images, subject.clean
    twin, flags = subject.twin.found
    if twin is None:
        searched = blackbox(subject, settings, progress)
        return dataclasses.replace(searched, flags=(*flags, *searched.flags))
    attack = pgd_settings(subject.eps, settings)
    temperature, zero_at_one, lowest_zero = best_temperature(subject, twin.network, attack)
    likeness = dataclasses.replace(compare(subject, twin), temperature=temperature)
    outcome, own_zero = _attacked(subject, twin, temperature, attack, progress)
    if subject.reference is None:
        reference_robust = subject.stored_answers(drawn.ids)[1]
    else:
        reference_robust = clean.reference & outcome.reference_right
    checks = [_twin_differs(likeness, subject.precision, exact=twin.exact)]
    checks += _gradient_checks(min(outcome.zero_gradients, lowest_zero), zero_at_one, own_zero, temperature)
    checks += gradient_checks(subject, twin.network, settings.seed)
    return Measurement(
        attack=attack,
        ids=drawn.ids,
        reference_clean=clean.reference,
        artifact_clean=clean.artifact,
        reference_robust=reference_robust,
        artifact_robust=clean.artifact & outcome.artifact_right,
        works_with=GRADIENTS,
        flags=(*flags, *clean.flags, *raised(checks)),
        paired=subject.reference is not None,
        twin=likeness,
        seconds=time.monotonic() - start,
        candidates=Candidates(drawn.labels, outcome.worst),
    )


def _gives_the_gradients(subject: HostSubject, twin: Differentiable) -> bool:
    """Whether the first attack is already that with the checkpoint's own gradients, or there are none."""
    return subject.checkpoint is None or twin.made_from == CHECKPOINT


def _attacked(
    subject: HostSubject, twin: Differentiable, temperature: float, attack: AttackSpec, progress: Progress
) -> tuple[PairedOutcome, float]:
    """Attack with the twin's gradients, and with the checkpoint's own unless these are the twin's.

    Returns:
        Both attacks joined, and the share of the checkpoint's gradients that are zero at its logits' own scale.
    """
    drawn, attacks = subject.images, 1 if _gives_the_gradients(subject, twin) else 2
    outcome = paired_pgd(
        subject.score,
        TorchOracle(twin.network, temperature=temperature),
        drawn.images,
        drawn.labels,
        attack,
        reference=subject.reference,
        progress=part_of(progress, 0, attacks),
    )
    if attacks == 1:
        return outcome, 0.0
    own, own_zero = attack_by_checkpoint(subject, attack, part_of(progress, 1, attacks))
    return outcome.joined(own), own_zero


def compare(subject: HostSubject, twin: Differentiable) -> Twin:
    """Compare the twin's logits with the artifact's on stored images, clean and attacked, and on drawn images.

    In 8 bits the classes are compared on the half of the images of which the artifact is surest, as at export. The
    other half needs no such comparison: the logits are compared on all images without exception, so that classes can
    differ only where the artifact's two largest logits lie within twice the tolerance of each other. A twin that is
    wrong only there gives the attack worse gradients, which `twin_gradient_differs` and `blackbox` find. Whether an
    image is lost is always judged by the artifact's own logits. Where both compute the same integers, the classes are
    compared on all images.
    """
    images = np.concatenate([subject.golden.clean, subject.golden.attacked, subject.images.clean])
    ours, theirs = TorchOracle(twin.network).logits(images), subject.score(images)
    error = relative_error(ours, theirs)
    if subject.precision == "int8" and not twin.exact:
        sure = surest(theirs)
        ours, theirs = ours[sure], theirs[sure]
    return Twin(
        made_from=twin.made_from,
        max_logit_error=error if np.isfinite(error) else 1e308,
        tolerance=_tolerance(subject, twin),
        argmax_agreement=agreement(ours, theirs),
        temperature=1.0,
    )


def _tolerance(subject: HostSubject, twin: Differentiable) -> float:
    """The largest relative logit error between an artifact and its twin that rounding explains."""
    if subject.precision != "int8" or twin.made_from == CHECKPOINT:
        return subject.tolerance
    return subject.twin.tolerance


def _twin_differs(twin: Twin, precision: str, *, exact: bool = False) -> Check:
    least = 1.0 if exact else AGREEMENT[precision]
    alike = twin.max_logit_error <= twin.tolerance and twin.argmax_agreement >= least
    detail = (
        f"{twin.made_from} in torch gives logits {twin.max_logit_error:.2g} (relative, tolerance {twin.tolerance:.2g}) "
        f"from the artifact's, classes agree on {100 * twin.argmax_agreement:.1f}%: its gradients are not the "
        "artifact's"
    )
    return Check("twin_differs", not alike, detail)


def _gradient_checks(zero: float, zero_at_one: float, own_zero: float, temperature: float) -> list[Check]:
    """Check the share of zero gradients at the chosen temperature, and of those that are zero only at temperature 1.

    An artifact inherits a loss that saturates from its checkpoint; `own_zero` is the share of the checkpoint's
    gradients that are zero at temperature 1.
    """
    nowhere = zero_gradient(zero, f"{100 * zero:.0f}% of the twin's gradients were zero at every temperature tried")
    vanished = (max(0.0, zero_at_one - zero) if nowhere.raised else zero_at_one) - own_zero
    detail = (
        f"{100 * vanished:.0f}% of the gradients vanish at the logits' own scale, and more than the checkpoint's; "
        f"attacked with the logits divided by {temperature:.3g}"
    )
    return [nowhere, saturated_gradient(vanished, detail)]
