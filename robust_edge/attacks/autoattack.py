"""AutoAttack, run through its reference implementation: each of its attacks, batch by batch.

`AutoAttack` is the standard set of RobustBench's leaderboard (Croce and Hein 2020, since August 2020).
`ThesisAutoAttack` is the earlier set, which Marshall 2020 used for Table 4.2: APGD on cross-entropy and on the DLR loss
and FAB with 5 restarts of 100 iterations each, Square with 5000 queries. As in the reference, every attack starts with
the same seed in every batch, so the result of a batch depends only on the seed and on its images.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, AttackSet, Batch
from robust_edge.attacks.input_gradients import only_input_gradients
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.measurement import GRADIENTS, LOGITS

MAX_TARGETS = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceAttack(Attack):
    """One attack of the reference implementation.

    Attributes:
        name: its name in the reference.
        version: the set of the reference that determines its settings: `standard` or `custom`.
        iterations: gradient steps per restart, as the reference sets them.
        queries: of Square, as the reference sets them.
        restarts: random starts, as the reference sets them.
        targets: number of target classes of a targeted attack.
    """

    name: str
    version: str
    iterations: int | None = None
    queries: int | None = None
    restarts: int = 1
    targets: int | None = None

    @property
    def works_with(self) -> str:
        """An attack that counts queries sees only logits."""
        return GRADIENTS if self.queries is None else LOGITS

    def perturb(self, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
        """As `Attack.perturb`; the random choices depend on the seed and on the batch, not on the positions."""
        devices = [batch.images.device] if batch.images.is_cuda else []
        logger = logging.getLogger("auto-attack")
        before, logger.disabled = logger.disabled, True  # the audit checks what the reference would warn about
        try:
            attack = _reference(self.name, _suite(model, self.version, threat, batch.seed, batch.images.device))
            if self.targets is not None:
                attack.n_target_classes = self.targets
            with torch.random.fork_rng(devices), only_input_gradients(model), evaluation_mode(model), torch.no_grad():
                return attack.perturb(batch.images.clone(), batch.labels.clone())  # type: ignore[no-any-return]
        finally:
            logger.disabled = before


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttack(AttackSet):
    """The standard set; all settings are those of the reference."""

    version: ClassVar[str] = "standard"
    names: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-t", "fab-t", "square")
    least_classes: ClassVar[int] = 4  # the targeted DLR loss uses the fourth largest logit

    @property
    def title(self) -> str:
        """The name of the set."""
        return "AutoAttack"

    def members(self, classes: int) -> dict[str, Attack]:
        """The reference's attacks by name, in order.

        Raises:
            InputError: there are too few classes for the DLR loss.
            ModuleNotFoundError: the extra `attack` is not installed.
        """
        if classes < self.least_classes:
            raise InputError(
                f"{self.title} needs at least {self.least_classes} classes for its DLR loss, the data set has "
                f"{classes}; choose another attack"
            )
        suite = _suite(nn.Identity(), self.version, Threat(0.1), 0, torch.device("cpu"))
        return {name: self._member(name, suite, classes) for name in self.names}

    def _member(self, name: str, suite: Any, classes: int) -> ReferenceAttack:
        attack = _reference(name, suite)
        return ReferenceAttack(
            name=name,
            version=self.version,
            iterations=getattr(attack, "n_iter", None),
            queries=getattr(attack, "n_queries", None),
            restarts=attack.n_restarts,
            targets=min(MAX_TARGETS, classes - 1) if name.endswith("-t") else None,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThesisAutoAttack(AutoAttack):
    """AutoAttack's set before August 2020."""

    version: ClassVar[str] = "custom"
    names: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-dlr", "fab", "square")
    least_classes: ClassVar[int] = 3  # the DLR loss uses the third largest logit

    @property
    def title(self) -> str:
        """The name of the set with its year."""
        return "AutoAttack (2020)"


def _suite(model: nn.Module, version: str, threat: Threat, seed: int, device: torch.device) -> Any:
    """The reference's object that holds all attacks on a network."""
    from pyautoattack import AutoAttack as Reference

    norm = "Linf" if threat.norm == LINF else "L2"
    attacks = None if version == "standard" else list(ThesisAutoAttack.names)
    return Reference(model, attacks=attacks, device=device, eps=threat.eps, norm=norm, seed=seed, version=version)


def _reference(name: str, suite: Any) -> Any:
    """The reference's object of one attack, configured for its loss."""
    if name.startswith("fab"):
        suite.fab.targeted = name == "fab-t"
        return suite.fab
    if name in ("apgd-t", "square"):
        return {"apgd-t": suite.apgd_targeted, "square": suite.square}[name]
    suite.apgd.loss = name.removeprefix("apgd-")
    return suite.apgd
