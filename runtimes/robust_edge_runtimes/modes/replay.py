"""Mode `replay`: the bundle's stored attack images, scored by the artifact."""

from __future__ import annotations

import time
from typing import List, Tuple

import numpy as np

from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.checks import forged_answers
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.images import refuse_no_images
from robust_edge_runtimes.verdict.measurement import STORED, Candidates, Measurement
from robust_edge_runtimes.verdict.subject import Subject


def replay(subject: Subject, settings: ModeSettings, progress: Progress = None) -> Measurement:
    """Score the first `settings.limit` stored images, clean and attacked.

    Raises:
        InputError: a limit below 1.
        BundleError: an attack image lies outside the ball that the manifest names.
    """
    refuse_no_images(settings.limit)
    golden, attack = subject.golden, subject.bundle.manifest.expected.attack
    distance = float(np.abs(golden.attacked - golden.clean).max())
    if not distance <= attack.eps + 1e-6:
        raise BundleError(
            f"golden.npz: an attack image moves {distance:.4g} from its clean one, eps is {attack.eps:.4g}"
        )
    start = time.monotonic()
    ids = np.arange(len(golden.labels))[: settings.limit]
    labels = golden.labels[ids]
    clean = is_right(subject.score(golden.clean[ids]), labels)
    attacked = is_right(subject.score(golden.attacked[ids]), labels)
    logits = _of_checkpoint(subject)
    reference_clean, reference_attacked = (is_right(part[ids], labels) for part in logits)
    return Measurement(
        attack=attack,
        ids=ids,
        reference_clean=reference_clean,
        artifact_clean=clean,
        reference_robust=reference_clean & reference_attacked,
        artifact_robust=clean & attacked,
        works_with=STORED,
        flags=tuple(raised(_stored_logits(subject, logits))),
        seconds=time.monotonic() - start,
        candidates=Candidates(labels, (golden.attacked[ids],)),
    )


def _of_checkpoint(subject: Subject) -> Tuple[np.ndarray, np.ndarray]:
    """The checkpoint's logits (N, K) of the stored images, clean and attacked; without a run, as the bundle has them.

    With a run they are computed: false ones in the bundle would lower the checkpoint's accuracy over all modes, and so
    hide what the artifact loses.
    """
    golden, reference = subject.golden, subject.reference
    if reference is None:
        return golden.clean_logits, golden.attacked_logits
    return reference(golden.clean), reference(golden.attacked)


def _stored_logits(subject: Subject, own: Tuple[np.ndarray, np.ndarray]) -> List[Check]:
    """Whether the logits that the bundle stores are the checkpoint's own; not asked where there is no checkpoint."""
    if subject.reference is None:
        return []
    stored = np.concatenate([subject.golden.clean_logits, subject.golden.attacked_logits])
    return [forged_answers(stored, np.concatenate(own))]
