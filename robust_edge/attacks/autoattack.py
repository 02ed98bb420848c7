"""AutoAttack through its reference implementation, attack by attack and batch by batch.

`AutoAttack` is the leaderboard's set (Croce and Hein 2020, since August 2020). `ThesisAutoAttack` is the set before
that, which Marshall 2020 used for Table 4.2: APGD on cross-entropy and on the DLR loss and FAB with 5 restarts of 100
iterations each, Square with 5000 queries. Every attack begins with the same seed in every batch, as the reference
does, so a batch's outcome depends on the seed and on the images in it, and not on what ran before.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, AttackSet
from robust_edge.attacks.modes import evaluation_mode, only_input_gradients
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.errors import InputError

MOST_TARGETS = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceAttack(Attack):
    """One attack of a set.

    Attributes:
        name: as the reference calls it.
        version: the reference's set whose settings it has: `standard` or `custom`.
        iterations: gradient steps per restart, as the reference sets them.
        queries: of Square, as the reference sets them.
        restarts: random starts, as the reference sets them.
        targets: classes that a targeted attack aims at.
    """

    name: str
    version: str
    iterations: int | None = None
    queries: int | None = None
    restarts: int = 1
    targets: int | None = None

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        *,
        seed: int,
        positions: Sequence[int],
    ) -> Tensor:
        """See Attack; the random choices depend on the seed and on the batch, not on the positions."""
        devices = [images.device] if images.is_cuda else []
        quiet = logging.getLogger("auto-attack")
        before, quiet.disabled = quiet.disabled, True  # what it would warn of is measured by the audit
        try:
            attack = _reference(self.name, _suite(model, self.version, threat, seed, images.device))
            if self.targets is not None:
                attack.n_target_classes = self.targets
            with torch.random.fork_rng(devices), only_input_gradients(model), evaluation_mode(model), torch.no_grad():
                return attack.perturb(images.clone(), labels.clone())  # type: ignore[no-any-return]
        finally:
            quiet.disabled = before


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttack(AttackSet):
    """The leaderboard's set; its settings are the reference's."""

    version: ClassVar[str] = "standard"
    names: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-t", "fab-t", "square")
    least_classes: ClassVar[int] = 4  # the targeted DLR loss divides by a gap to the fourth logit

    @property
    def title(self) -> str:
        """As `AutoAttack`."""
        return "AutoAttack"

    def members(self, classes: int) -> dict[str, Attack]:
        """See AttackSet.

        Raises:
            InputError: too few classes.
            ModuleNotFoundError: the extra `attack` is not installed.
        """
        if classes < self.least_classes:
            raise InputError(
                f"{self.title} needs at least {self.least_classes} classes for its DLR loss, the data have {classes}; "
                "use --attack pgd or cw"
            )
        suite = _suite(nn.Identity(), self.version, Threat(0.1), 0, torch.device("cpu"))
        return {name: self._member(name, suite, classes) for name in self.names}

    def _member(self, name: str, suite: Any, classes: int) -> ReferenceAttack:
        attack = _reference(name, suite)
        return ReferenceAttack(
            name=name,
            version=self.version,
            iterations=None if name == "square" else attack.n_iter,
            queries=attack.n_queries if name == "square" else None,
            restarts=attack.n_restarts,
            targets=min(MOST_TARGETS, classes - 1) if name.endswith("-t") else None,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThesisAutoAttack(AutoAttack):
    """The set before August 2020."""

    version: ClassVar[str] = "custom"
    names: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-dlr", "fab", "square")
    least_classes: ClassVar[int] = 3  # the DLR loss divides by a gap to the third logit

    @property
    def title(self) -> str:
        """As `AutoAttack (2020)`."""
        return "AutoAttack (2020)"


def _suite(model: nn.Module, version: str, threat: Threat, seed: int, device: torch.device) -> Any:
    """All attacks of the reference, bound to a network."""
    from pyautoattack import AutoAttack as Reference

    norm = "Linf" if threat.norm == LINF else "L2"
    attacks = None if version == "standard" else list(ThesisAutoAttack.names)
    return Reference(model, attacks=attacks, device=device, eps=threat.eps, norm=norm, seed=seed, version=version)


def _reference(name: str, suite: Any) -> Any:
    """The reference's object of an attack, set to its loss."""
    if name.startswith("fab"):
        suite.fab.targeted = name == "fab-t"
        return suite.fab
    if name in ("apgd-t", "square"):
        return {"apgd-t": suite.apgd_targeted, "square": suite.square}[name]
    suite.apgd.loss = name.removeprefix("apgd-")
    return suite.apgd
