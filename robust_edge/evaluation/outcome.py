"""The results of an attack: which stage broke which image, and with which settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from robust_edge.evaluation.accuracy import Accuracy, accuracy_of
from robust_edge.evaluation.campaign import CampaignResult, Stage
from robust_edge.run.per_class import ClassAccuracy
from robust_edge_runtimes.attacks.threat import Threat

WRONG_WHEN_CLEAN, ROBUST = "clean", "robust"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
    """The result of one attack of a sequence.

    Attributes:
        name: of the attack.
        settings: its settings, without those that are None.
        attacked: number of images that were right before this attack.
        broken: number of these images that the attack broke.
        outside: number of candidates that lay outside the ball or [0, 1] and were projected back before scoring.
        cumulative: accuracy on images that are right when clean and under all attacks up to this one.
        works_with: what the attack sees of the network, `gradients` or `logits`; empty in older records.
    """

    name: str
    settings: dict[str, Any]
    attacked: int
    broken: int
    outside: int
    cumulative: Accuracy
    works_with: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackResult:
    """The result of an attack, or of a sequence of attacks on the images that the earlier ones did not break.

    Attributes:
        attacked: the network whose gradients or scores the attack used.
        judged: the network that classified the candidates.
        attack: name of the attack, as given to `--attack`.
        title: the attack's name in a column header.
        threat: the ball.
        seed: of all random choices.
        batch_size: number of images per batch; AutoAttack's random choices depend on it.
        clean: accuracy on clean images.
        stages: the result of each attack of the sequence.
        robust: accuracy on images that are right when clean and under all candidates.
        positions: indices of the images in the test split.
        outcomes: for each image `clean` (wrong without an attack), `robust`, or the name of the attack that broke it.
        per_class: the same accuracies for the images of each class; empty in older records.
    """

    attacked: str
    judged: str
    attack: str
    title: str
    threat: Threat
    seed: int
    batch_size: int
    clean: Accuracy
    stages: tuple[StageResult, ...]
    robust: Accuracy
    positions: tuple[int, ...]
    outcomes: tuple[str, ...]
    per_class: tuple[ClassAccuracy, ...] = ()


def stage_results(stages: Sequence[Stage], result: CampaignResult) -> tuple[tuple[StageResult, ...], tuple[str, ...]]:
    """Count the broken images of a cumulative campaign with one evaluated network.

    Args:
        stages: the stages of the campaign.
        result: the result of the campaign.

    Returns:
        One StageResult per stage, and one outcome per image as in `AttackResult.outcomes`.
    """
    clean, results = result.clean[0], []
    before = clean  # (N,) bool, whether the network is still right before the stage
    outcomes = [ROBUST if right else WRONG_WHEN_CLEAN for right in clean.tolist()]
    for stage, after, outside in zip(stages, result.robust[:, 0], result.outside, strict=True):
        broken = before & ~after
        for row in broken.nonzero().squeeze(1).tolist():
            outcomes[row] = stage.name
        results.append(
            StageResult(
                name=stage.name,
                settings=stage.attack.settings(),
                attacked=int(before.sum()),
                broken=int(broken.sum()),
                outside=outside,
                cumulative=accuracy_of(after),
                works_with=stage.attack.works_with,
            )
        )
        before = after
    return tuple(results), tuple(outcomes)
