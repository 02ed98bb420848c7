"""Attacks whose loss is divided by a temperature, where its gradient vanishes at the logits' own scale.

Large logits saturate the softmax: the cross-entropy's gradient is zero in fp32 although the logits have one. That may
hide an artifact's gradients, and it happens to honest networks, such as barely trained ones.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import nn

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.paired_pgd import PairedOutcome, paired_pgd
from robust_edge.verification.subject import HostSubject
from robust_edge_runtimes.attacks.threat import step_size
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.verdict.checks import ZERO_GRADIENT_SHARE

PROBED = 64
PROBE_STEPS = 5
SCALES = (0.1, 1.0, 10.0)


def best_temperature(subject: HostSubject, network: nn.Module, attack: AttackSpec) -> tuple[float, float, float]:
    """The temperature at which a short attack with a network's gradients breaks the artifact on most images.

    Returns:
        The temperature, 1 unless another breaks more images; the share of gradients that were zero at 1; and the
        smallest such share, since the temperature that breaks most images may saturate the softmax of the others.
    """
    images, labels = subject.images.images[:PROBED], subject.images.labels[:PROBED]
    ordered = np.sort(TorchOracle(network).logits(images), axis=1)
    lead = float(np.median(ordered[:, -1] - ordered[:, -2]))
    lead = lead if np.isfinite(lead) and lead > 0 else 1.0
    steps = min(PROBE_STEPS, attack.steps)
    short = dataclasses.replace(attack, steps=steps, step_size=step_size(attack.eps, max(steps, 1)))
    found = []
    for temperature in (1.0, *(scale * lead for scale in SCALES)):
        outcome = paired_pgd(subject.score, TorchOracle(network, temperature=temperature), images, labels, short)
        found.append((int(outcome.artifact_right.sum()), outcome.zero_gradients, temperature))
    _, _, best = min(found, key=lambda item: item[:2])
    return best, found[0][1], min(zero for _, zero, _ in found)


def attack_by_checkpoint(
    subject: HostSubject, attack: AttackSpec, progress: Progress = None
) -> tuple[PairedOutcome, float]:
    """PGD with the checkpoint's gradients, and again at the best temperature if too many of them are zero.

    Returns:
        The outcome, with the smallest share of zero gradients at any temperature; and the share at the logits' scale.
    """
    assert subject.checkpoint is not None, "the caller has a run"
    images, labels = subject.images.images, subject.images.labels
    first = paired_pgd(subject.score, subject.checkpoint, images, labels, attack, progress=progress)
    if subject.network is None or first.zero_gradients <= ZERO_GRADIENT_SHARE:
        return first, first.zero_gradients
    temperature, _, lowest_zero = best_temperature(subject, subject.network, attack)
    oracle = TorchOracle(subject.network, temperature=temperature)
    again = paired_pgd(subject.score, oracle, images, labels, attack, progress=progress)
    both = dataclasses.replace(
        again,
        artifact_right=first.artifact_right & again.artifact_right,
        reference_right=first.reference_right & again.reference_right,
        zero_gradients=min(again.zero_gradients, lowest_zero),
    )
    return both, first.zero_gradients
