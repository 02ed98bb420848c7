"""AutoAttack through its reference implementation, attack by attack and batch by batch.

`standard` is the leaderboard's set (Croce and Hein 2020, since August 2020). `thesis` is the set before that, which
Marshall 2020 used for Table 4.2: APGD on cross-entropy and on the DLR loss and FAB with 5 restarts of 100 iterations
each, Square with 5000 queries. Every attack begins with the same seed in every batch, as the reference does, so a
batch's outcome depends on the seed and on the images in it, and not on what ran before.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robust_edge.attacks.ball import LINF, check_norm
from robust_edge.attacks.pgd import evaluation_mode, only_input_gradients
from robust_edge_runtimes.core.errors import InputError, unknown_name

STANDARD, THESIS = "standard", "thesis"
STAGES = {
    STANDARD: ("apgd-ce", "apgd-t", "fab-t", "square"),
    THESIS: ("apgd-ce", "apgd-dlr", "fab", "square"),
}
MOST_TARGETS = 9
CLASSES_NEEDED = {
    STANDARD: 4,
    THESIS: 3,
}  # the DLR loss divides by a gap to the third logit, the targeted to the fourth


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttackSettings:
    """Which set, on which ball.

    Attributes:
        version: `standard` or `thesis`.
        eps: radius in pixel units on [0, 1].
        norm: `linf` or `l2`.
        seed: of every attack on every batch.
        classes: K.
    """

    version: str
    eps: float
    norm: str = LINF
    seed: int = 0
    classes: int

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if self.version not in STAGES:
            raise unknown_name("AutoAttack version", self.version, STAGES)
        needed = CLASSES_NEEDED[self.version]
        if self.classes < needed:
            raise InputError(
                f"AutoAttack's {self.version} set needs at least {needed} classes for its DLR loss, the data have "
                f"{self.classes}; use --attack pgd or cw"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceAttack:
    """One attack of the set.

    Attributes:
        name: as the reference calls it.
        iterations: gradient steps per restart, or queries of Square.
        restarts: random starts.
        targets: classes that a targeted attack aims at; None for the others.
        perturb: (images, labels) to candidates.
    """

    name: str
    iterations: int
    restarts: int
    targets: int | None
    perturb: Callable[[Tensor, Tensor], Tensor]


def reference_attacks(
    model: nn.Module, settings: AutoAttackSettings, device: torch.device
) -> tuple[ReferenceAttack, ...]:
    """The set's attacks in their order, bound to a network.

    Raises:
        ModuleNotFoundError: the extra `attack` is not installed.
    """
    from pyautoattack import AutoAttack

    norm = "Linf" if settings.norm == LINF else "L2"
    version, attacks = ("standard", None) if settings.version == STANDARD else ("custom", list(STAGES[THESIS]))
    suite = AutoAttack(
        model, attacks=attacks, device=device, eps=settings.eps, norm=norm, seed=settings.seed, version=version
    )
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(MOST_TARGETS, settings.classes - 1)
    return tuple(_bound(name, suite, model) for name in STAGES[settings.version])


def _bound(name: str, suite: Any, model: nn.Module) -> ReferenceAttack:
    attack = {"apgd-t": suite.apgd_targeted, "square": suite.square}.get(
        name, suite.fab if name.startswith("fab") else suite.apgd
    )
    targeted = name in ("apgd-t", "fab-t")

    def perturb(images: Tensor, labels: Tensor) -> Tensor:
        attack.seed = suite.seed
        if name in ("apgd-ce", "apgd-dlr"):
            attack.loss = name.removeprefix("apgd-")
        if name.startswith("fab"):
            attack.targeted = targeted
        devices = [images.device] if images.is_cuda else []
        quiet = logging.getLogger("auto-attack")
        before, quiet.disabled = quiet.disabled, True  # what it would warn of is measured by the audit
        try:
            with torch.random.fork_rng(devices), only_input_gradients(model), evaluation_mode(model), torch.no_grad():
                return attack.perturb(images.clone(), labels.clone())  # type: ignore[no-any-return]
        finally:
            quiet.disabled = before

    iterations = attack.n_queries if name == "square" else attack.n_iter
    return ReferenceAttack(name, iterations, attack.n_restarts, attack.n_target_classes if targeted else None, perturb)
