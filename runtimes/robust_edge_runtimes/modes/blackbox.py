"""Mode `blackbox`: the Square attack on the artifact and, with a run, on its checkpoint."""

from __future__ import annotations

import time
from typing import Sequence

import numpy as np

from robust_edge_runtimes.attacks.square import DEFAULT_QUERIES, FEW_QUERIES, Square
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.modes.mode import Progress, part_of
from robust_edge_runtimes.modes.settings import ModeOption, ModeSettings
from robust_edge_runtimes.scoring import Score
from robust_edge_runtimes.verdict.measurement import LOGITS, Candidates, Measurement
from robust_edge_runtimes.verdict.subject import Subject

QUERIES_OPTION = ModeOption(
    "queries", "Queries per image, in the modes that see only logits", DEFAULT_QUERIES, quick=FEW_QUERIES
)


def blackbox(subject: Subject, settings: ModeSettings, progress: Progress = None) -> Measurement:
    """Square with the number of queries per image of QUERIES_OPTION.

    With a run, the checkpoint is attacked in the same way, and each network scores the final candidates of both
    attacks. Without a run, the checkpoint's stored logits are used instead.
    """
    start, drawn, clean = time.monotonic(), subject.images, subject.clean
    square, threat = Square(settings.value(QUERIES_OPTION)), Threat(subject.eps)
    attack = square.spec(threat, settings.seed)
    networks = [subject.score] if subject.reference is None else [subject.score, subject.reference]
    found = [
        square.perturb(
            network,
            drawn.images,
            drawn.labels,
            threat,
            np.random.default_rng(attack.seed),
            progress=part_of(progress, part, len(networks)),
        )
        for part, network in enumerate(networks)
    ]
    if subject.reference is None:
        reference_robust = subject.stored_answers(drawn.ids)[1]
    else:
        reference_robust = clean.reference & _right_on(subject.reference, found, drawn.labels)
    return Measurement(
        attack=attack,
        ids=drawn.ids,
        reference_clean=clean.reference,
        artifact_clean=clean.artifact,
        reference_robust=reference_robust,
        artifact_robust=clean.artifact & _right_on(subject.score, found, drawn.labels),
        works_with=LOGITS,
        flags=clean.flags,
        paired=subject.reference is not None,
        seconds=time.monotonic() - start,
        candidates=Candidates(drawn.labels, tuple(found)),
    )


def _right_on(score: Score, candidates: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """(N,) bool: whether the network is right on all candidates of an image."""
    right: np.ndarray = np.logical_and.reduce([is_right(score(images), labels) for images in candidates])
    return right
