"""The base class of all attacks: a frozen dataclass that holds the settings and perturbs images.

A new attack is one file with one subclass of `Attack`, and one row in `robust_edge/attacks/table.py`. An attack outside
this package needs no row: `--attack package.module:Class`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_edge.attacks.logits import is_right
from robust_edge.settings.setting import check
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks.threat import NORMS, Threat
from robust_edge_runtimes.verdict.measurement import GRADIENTS


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """The images that are attacked together, and what the random choices of an attack may depend on.

    Attributes:
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        positions: indices of the images in the test split. An attack whose random choices depend only on these and on
            the seed gives the same candidates for every batch size.
        seed: of all random choices.
    """

    images: Tensor
    labels: Tensor
    positions: Sequence[int]
    seed: int = 0

    def take(self, rows: Tensor) -> Batch:
        """The images at these rows."""
        positions = tuple(self.positions[row] for row in rows.tolist())
        return Batch(self.images[rows], self.labels[rows], positions, self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(abc.ABC):
    """An attack and its settings, which are the fields of the subclass; every field has a default.

    A field declared with `robust_edge.settings.setting.setting` is checked against its range and listed in the docs.
    `--set NAME=VALUE` sets a field, `--steps` and `--restarts` those of these names; the JSON record holds all fields.

    Attributes:
        norms: the norms in which the attack is defined.
        few_steps: number of `steps` below which the validity flag `few_steps` is raised; 0 never raises it.
        radii: increasing radii, from 0, at which `evaluate` runs the attack one after another; () for one radius.
    """

    norms: ClassVar[tuple[str, ...]] = NORMS
    few_steps: ClassVar[int] = 0
    radii: ClassVar[tuple[float, ...]] = ()

    def __post_init__(self) -> None:
        check(self)

    @property
    def works_with(self) -> str:
        """What the attack sees of the network: GRADIENTS or LOGITS."""
        return GRADIENTS

    @property
    def title(self) -> str:
        """The name of the attack in a column header, with its main settings, for example `PGD-50×3`."""
        return type(self).__name__

    @abc.abstractmethod
    def perturb(self, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
        """Compute one candidate per image; the caller projects it into the ball and evaluates it.

        Args:
            model: raw pixels to logits; training mode and parameter gradients must be the same afterwards.
            batch: the images.
            threat: the ball.

        Returns:
            (N, C, H, W), detached.
        """

    def for_transfer(self) -> Attack:
        """The variant of the attack whose candidates are evaluated on other networks than `model`."""
        return self

    def settings(self) -> dict[str, Any]:
        """The fields that are not None, for the record."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSet(Attack):
    """A sequence of attacks, each on the images that the earlier ones did not break."""

    @abc.abstractmethod
    def members(self, classes: int) -> Mapping[str, Attack]:
        """The attacks by name, in order.

        Args:
            classes: K, the number of logits.

        Raises:
            InputError: there are too few classes for an attack.
        """

    def perturb(self, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
        """The first candidate that is misclassified, otherwise the last one; arguments as for `Attack.perturb`."""
        candidates, classes = batch.images.clone(), _logits(model, batch.images[:1]).shape[1]
        for member in self.members(classes).values():
            rows = is_right(_logits(model, candidates), batch.labels).nonzero().squeeze(1)
            if len(rows):
                candidates[rows] = member.perturb(model, batch.take(rows), threat)
        return candidates


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), evaluation_mode(model):
        return model(images)  # type: ignore[no-any-return]
