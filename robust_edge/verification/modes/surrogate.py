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
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.verdict.checks import ZERO_GRADIENT_SHARE, not_the_checkpoint, zero_gradient
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.measurement import GRADIENTS, Candidates, Measurement
from robust_edge_runtimes.verdict.statistic import binomial_tail

CHANCE = 1e-5  # of a false alarm on one part of the images; at most a few parts hold stored images


def surrogate(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Measurement:
    """Attack, and compare the artifact's logits with the checkpoint's on clean, attacked and unrelated images.

    The checkpoint's logits are computed here, so that a forged bundle cannot choose them, unlike those that it stores.
    """
    start, drawn, clean = time.monotonic(), subject.images, subject.clean
    attack = pgd_settings(subject.eps, settings)
    outcome, zero = attack_by_checkpoint(subject, attack, progress)
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
        *([] if zero > ZERO_GRADIENT_SHARE else [_claimed_robustness(subject, attack, outcome.reference_right)]),
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


def _claimed_robustness(subject: HostSubject, attack: AttackSpec, right: np.ndarray) -> Check:
    """Whether the stored attack left more images right than this one, on the stored ones among the drawn images.

    An attack with as many steps as this one or more, and with as large an ε, leaves one image right and breaks another
    by its other random start, both equally often: an exact sign test on these images decides.

    Args:
        subject: with its images.
        attack: of this mode, without a temperature.
        right: (N,) bool, the checkpoint was right on the drawn images and under this attack.
    """
    claimed, stored = subject.bundle.manifest.expected.attack, subject.images.ids < len(subject.golden.labels)
    left, here = subject.stored_answers(subject.images.ids[stored])[1], right[stored]
    more, fewer = int((left & ~here).sum()), int((here & ~left).sum())
    comparable = claimed.steps >= attack.steps and claimed.eps >= attack.eps
    detail = (
        f"attack {claimed.name}, {claimed.steps} steps: it left {left.sum()} of {len(left)} stored images right, this "
        f"machine's own attack with {attack.steps} steps {here.sum()}"
    )
    return Check("false_claim", comparable and binomial_tail(more, more + fewer, 0.5) < CHANCE, detail)
