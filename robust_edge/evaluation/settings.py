"""The settings of `evaluate` and `transfer`. The command line reads them, so nothing here imports torch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from robust_edge.attacks.table import ATTACKS, PGD, attack_class, build_attack, setting_names
from robust_edge.settings.setting import Setting, check, setting, walk
from robust_edge_runtimes.attacks.threat import LINF, NORMS
from robust_edge_runtimes.core.errors import InputError

if TYPE_CHECKING:
    from robust_edge.attacks.attack import Attack

DEFAULT_BUDGET_MIB = 2048
MOST_IMAGES = 250
EPSILONS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
TRANSFER_STEPS = 100
radius = functools.partial(
    setting,
    flag="--eps",
    range="(0, inf)",
    noun="a radius",
    hint="a radius of 0 is no attack, 8/255 is a usual one",
)


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
        "gradient steps; by default the attack's own number",
        flag="--steps",
        range="[1, inf)",
    )
    limit: int | None = setting(
        None, "number of test images, a fixed random subset; all by default", flag="--limit", range="[1, inf)"
    )
    seed: int = setting(
        0, "seed of all random choices of the attack; 0 by default", flag="--seed", range=f"[0, {2**63 - 1}]"
    )
    data_dir: str | None = setting(None, "folder of the run's images, if they were moved", flag="--data-dir")
    device: str = setting("auto", "where to compute: cpu, cuda, cuda:1 or auto, which is the default", flag="--device")
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings(EvaluationSettings):
    """The settings of `evaluate`; None means the default that the help text names."""

    norm: str = setting(LINF, f"norm of the perturbation, {LINF} by default", flag="--norm", choices=NORMS)
    eps: float | None = radius(
        None, "radius in pixel units; by default that of the run, or 8/255 where it is 0; 0.5 in l2"
    )
    restarts: int | None = setting(
        None, "random starts; by default the attack's own number", flag="--restarts", range="[1, inf)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        attack = self.build()
        if self.norm not in attack.norms:
            suitable = ", ".join(name for name in ATTACKS if self.norm in attack_class(name).norms)
            defined = ", ".join(attack.norms)
            raise InputError(f"attack {self.attack} is defined in {defined} only; attacks in {self.norm}: {suitable}")
        if attack.radii and self.eps is not None:
            raise InputError(f"attack {self.attack} uses a fixed list of radii; leave eps out, it is {self.eps:g}")
        _check_pixel_range(self.norm, self.eps or 0)

    def build(self) -> Attack:
        """The attack with its settings."""
        return build_attack(self.attack, {**self.options, "steps": self.steps, "restarts": self.restarts})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferSettings(EvaluationSettings):
    """How the images are made; the targets see what the attack's `for_transfer` makes, the last iterate of PGD."""

    steps: int | None = setting(None, f"gradient steps; {TRANSFER_STEPS} by default", flag="--steps", range="[1, inf)")
    epsilons: tuple[float, ...] = radius(
        EPSILONS, "radius in pixel units in linf, repeatable; nine values from 0.01 to 0.3 by default"
    )

    def __post_init__(self) -> None:
        if not self.epsilons or list(self.epsilons) != sorted(set(self.epsilons)):
            shown = ", ".join(f"{eps:g}" for eps in self.epsilons) or "none"
            raise InputError(f"epsilons must be one or several radii in increasing order; they are {shown}")
        super().__post_init__()
        attack = self.build()
        if attack.radii or LINF not in attack.norms:
            raise InputError(f"attack {self.attack}: transfer needs an attack with a single radius in {LINF}")
        _check_pixel_range(LINF, self.epsilons[-1])

    def build(self) -> Attack:
        """The variant of the attack for transfer, with its settings."""
        given = {} if self.steps is None else {"steps": self.steps}
        default = TRANSFER_STEPS if "steps" in setting_names(attack_class(self.attack)) else None
        return build_attack(self.attack, {"steps": default, **self.options, **given}).for_transfer()


def options_of(settings: type[EvaluationSettings]) -> Iterator[tuple[str, str, Setting]]:
    """Name, type and declaration of every setting of a command, for `setting_options`."""
    return ((key, str(field.type), declaration) for key, field, declaration in walk(settings))


def _check_pixel_range(norm: str, eps: float) -> None:
    if norm == LINF and eps > 1:
        raise InputError(f"eps must be at most 1 in {LINF}, the range of pixels; it is {eps:g}, 8/255 is usual")
