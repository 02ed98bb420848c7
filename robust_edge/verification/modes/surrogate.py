"""Mode `surrogate`: PGD on the artifact with the checkpoint's gradients at the same points."""

from __future__ import annotations

import time

import numpy as np

from robust_edge.verification.paired_pgd import pgd_settings
from robust_edge.verification.probes import probes
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.temperature import attack_by_checkpoint
from robust_edge_runtimes.core.closeness import OUTLIERS
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.verdict.checks import not_the_checkpoint, zero_gradient
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.measurement import GRADIENTS, Candidates, Measurement


def surrogate(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Measurement:
    """Attack, and compare the artifact's logits with the checkpoint's on clean, attacked and unrelated images.

    The checkpoint's logits are computed here, so that a forged bundle cannot choose them, unlike those that it stores.
    """
    start, drawn, clean = time.monotonic(), subject.images, subject.clean
    attack = pgd_settings(subject.eps, settings)
    outcome, _ = attack_by_checkpoint(subject, attack, progress)
    detail = f"{100 * outcome.zero_gradients:.0f}% of the checkpoint's gradients were zero at every temperature tried"
    checks = [
        _compared("test images", drawn.clean, subject),
        _compared("attacked test images", outcome.worst[1], subject),
        *(
            check
            for name, images in probes(subject, settings.seed)
            for check in subject.compared(name, images, subject.score(images))
        ),
        zero_gradient(outcome.zero_gradients, detail),
    ]
    return Measurement(
        attack=attack,
        ids=drawn.ids,
        reference_clean=clean.reference,
        artifact_clean=clean.artifact,
        reference_robust=clean.reference & outcome.reference_right,
        artifact_robust=clean.artifact & outcome.artifact_right,
        works_with=GRADIENTS,
        flags=(*clean.flags, *raised(checks)),
        seconds=time.monotonic() - start,
        candidates=Candidates(drawn.labels, outcome.worst),
    )


def _compared(name: str, images: np.ndarray, subject: HostSubject) -> Check:
    """Whether the artifact's logits on these images are the checkpoint's."""
    assert subject.reference is not None, "it comes with the checkpoint"
    expected = subject.reference(images)
    outliers = OUTLIERS.get(subject.precision, 0.0)
    return not_the_checkpoint(name, subject.score(images), expected, subject.tolerance, outliers)
