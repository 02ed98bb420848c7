"""What an evaluation found: which attack broke which image, and with which settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from robust_edge.evaluation.accuracy import Accuracy, accuracy
from robust_edge.evaluation.campaign import Stage, Tally
from robust_edge_runtimes.attacks.threat import Threat

WRONG, HELD = "clean", "robust"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
    """One attack.

    Attributes:
        name: of the attack.
        settings: the fields of its class that are set.
        attacked: images that were still right before it.
        broken: how many of them it broke.
        outside: candidates that lay outside the ball or [0, 1] and were projected back before they were scored.
        cumulative: right when clean and under every attack up to this one.
    """

    name: str
    settings: dict[str, Any]
    attacked: int
    broken: int
    outside: int
    cumulative: Accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackResult:
    """A network under an attack, or under a sequence of attacks, each on the images that are right after those before.

    Attributes:
        attacked: the network whose gradients or scores the attack used.
        judged: the network whose predictions count.
        attack: as `--attack` names it.
        title: of the attack in a column head.
        threat: the ball.
        seed: of all random choices.
        batch_size: images at a time; AutoAttack's random choices depend on it.
        robust: right when clean and under every candidate.
        positions: of the images in the test split.
        outcomes: per image `clean` (wrong without an attack), `robust`, or the name of the attack that broke it.
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


def stage_results(stages: Sequence[Stage], tally: Tally) -> tuple[tuple[StageResult, ...], tuple[str, ...]]:
    """Count a cumulative campaign of one judge.

    Args:
        stages: what was run.
        tally: how it came out.

    Returns:
        One result per stage, and one outcome per image, as AttackResult describes them.
    """
    clean, before, results = tally.clean[0], tally.clean[0], []
    outcomes = [HELD if right else WRONG for right in clean.tolist()]
    for stage, after, outside in zip(stages, tally.held[:, 0], tally.outside, strict=True):
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
                cumulative=accuracy(int(after.sum()), len(clean)),
            )
        )
        before = after
    return tuple(results), tuple(outcomes)
