"""What an evaluation found: which attack broke which image, with the attack's settings and the flags against it."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from robust_edge.evaluation.accuracy import Accuracy, accuracy

WRONG, HELD = "clean", "robust"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One attack's settings.

    Attributes:
        iterations: gradient steps per restart, or queries of a black box.
        restarts: random starts.
        step_size: None where the attack chooses its own.
        targets: classes that a targeted attack aims at.
    """

    name: str
    iterations: int
    restarts: int = 1
    step_size: float | None = None
    targets: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThreatSpec:
    """What the adversary could do.

    Attributes:
        attack: as `--attack` names it.
        norm: `linf` or `l2`.
        eps: radius in pixel units on [0, 1].
        seed: of all random choices.
        batch_size: images at a time; AutoAttack's random choices depend on it.
        stages: the attacks, in order.
    """

    attack: str
    norm: str
    eps: float
    seed: int
    batch_size: int
    stages: tuple[StageSpec, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
    """One attack.

    Attributes:
        attacked: images that were still right before it.
        broken: how many of them it broke.
        outside: candidates that had left the ball or [0, 1] and were brought back before they were judged.
        cumulative: right when clean and under every attack up to this one.
    """

    name: str
    attacked: int
    broken: int
    outside: int
    cumulative: Accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackResult:
    """A network under a sequence of attacks, each on what the ones before left.

    Attributes:
        attacked: whose gradients or scores the attacks used.
        judged: whose predictions count.
        robust: right when clean and under every candidate.
        positions: of the images in the test split.
        fates: per image `clean` (wrong without an attack), `robust`, or the name of the attack that broke it.
    """

    attacked: str
    judged: str
    spec: ThreatSpec
    clean: Accuracy
    stages: tuple[StageResult, ...]
    robust: Accuracy
    positions: tuple[int, ...]
    fates: tuple[str, ...]


def attack_result(
    spec: ThreatSpec,
    clean: Tensor,
    held: Tensor,
    outside: tuple[int, ...],
    positions: tuple[int, ...],
    *,
    attacked: str,
    judged: str,
) -> AttackResult:
    """Count a cumulative campaign.

    Args:
        spec: the attacks.
        clean: (N,) bool.
        held: (S, N) bool, right under this stage and all before it.
        outside: per stage.
        positions: of the images.
        attacked: see AttackResult.
        judged: see AttackResult.
    """
    total, before, stages = len(clean), clean, []
    fates = [HELD if right else WRONG for right in clean.tolist()]
    for stage, after, left in zip(spec.stages, held, outside, strict=True):
        broken = before & ~after
        for row in broken.nonzero().squeeze(1).tolist():
            fates[row] = stage.name
        stages.append(
            StageResult(
                name=stage.name,
                attacked=int(before.sum()),
                broken=int(broken.sum()),
                outside=left,
                cumulative=accuracy(int(after.sum()), total),
            )
        )
        before = after
    return AttackResult(
        attacked=attacked,
        judged=judged,
        spec=spec,
        clean=accuracy(int(clean.sum()), total),
        stages=tuple(stages),
        robust=accuracy(int(before.sum()), total),
        positions=positions,
        fates=tuple(fates),
    )
