"""The settings that `evaluate` and `transfer` share. The command line reads them, so nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from robust_edge.attacks.table import PGD
from robust_edge.settings.setting import Setting, check, setting, walk

DEFAULT_BUDGET_MIB = 2048
MOST_IMAGES = 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How test images are chosen and attacked.

    Attributes:
        attack: a name of ATTACKS, or `package.module:Class`.
        options: further settings of the attack by name.
    """

    attack: str = PGD
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int | None = setting(
        None,
        "gradient steps; by default as many as the attack's class says (transfer: 100)",
        flag="--steps",
        range="[1, inf)",
    )
    limit: int | None = setting(
        None, "use a fixed random subset of so many test images", flag="--limit", range="[1, inf)"
    )
    seed: int = setting(
        0, "seed of all random choices of the attack; 0 by default", flag="--seed", range=f"[0, {2**63 - 1}]"
    )
    data_dir: str | None = setting(None, "folder of the run's images, if they were moved", flag="--data-dir")
    device: str = setting("auto", "cpu, cuda, cuda:1 or auto, which is the default", flag="--device")
    batch: int = setting(
        MOST_IMAGES, f"most images per batch; {MOST_IMAGES} by default", flag="--batch", range="[1, inf)"
    )
    memory_mib: int = setting(
        DEFAULT_BUDGET_MIB,
        f"memory in MiB that a batch may use; {DEFAULT_BUDGET_MIB} by default",
        flag="--memory",
        range="[1, inf)",
    )
    fresh: bool = setting(False, "start again instead of resuming an interrupted evaluation", flag="--fresh")

    def __post_init__(self) -> None:
        check(self)


def shared_settings() -> Iterator[tuple[str, str, Setting]]:
    """Name, type and declaration of every setting that both commands have an option for."""
    return ((key, str(field.type), declaration) for key, field, declaration in walk(EvaluationSettings))
