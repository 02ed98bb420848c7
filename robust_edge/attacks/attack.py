"""What every attack is: a frozen dataclass that holds its settings and perturbs images.

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
from robust_edge.attacks.modes import evaluation_mode
from robust_edge_runtimes.attacks.threat import NORMS, Threat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(abc.ABC):
    """An attack with its settings, which are the fields of the subclass, each with a default.

    `--steps` and `--restarts` set fields of those names; a record in JSON holds every field.

    Attributes:
        norms: where the attack is defined.
        few_steps: fewer `steps` than this raise the validity flag `few_steps`; 0 never raises it.
    """

    norms: ClassVar[tuple[str, ...]] = NORMS
    few_steps: ClassVar[int] = 0

    @property
    def title(self) -> str:
        """The attack in a column head, with the settings that tell it from others, as `PGD-50×3`."""
        return type(self).__name__

    @abc.abstractmethod
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
        """One candidate per image; the caller projects it into the ball and judges it.

        Args:
            model: raw pixels to logits, in the caller's mode; leave modes and gradients of parameters as they are.
            images: (N, C, H, W) float in [0, 1].
            labels: (N,) int64.
            threat: the ball.
            seed: of all random choices.
            positions: of the images in the test split; random choices that depend on these and on the seed alone give
                the same candidates in batches of any size.

        Returns:
            (N, C, H, W), detached.
        """

    def for_transfer(self) -> Attack:
        """The attack whose candidates are shown to other networks than `model`."""
        return self

    def settings(self) -> dict[str, Any]:
        """The fields that are set, for the record."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackSet(Attack):
    """Several attacks in order, each on the images that are still right after those before it."""

    @abc.abstractmethod
    def members(self, classes: int) -> Mapping[str, Attack]:
        """The attacks by name, in order.

        Args:
            classes: K, the number of logits.

        Raises:
            InputError: too few classes.
        """

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
        """The first candidate that fooled the network, else the last one. Args as of `Attack.perturb`."""
        found, classes = images.clone(), _logits(model, images[:1]).shape[1]
        for member in self.members(classes).values():
            rows = is_right(_logits(model, found), labels).nonzero().squeeze(1)
            if len(rows):
                places = [positions[row] for row in rows.tolist()]
                found[rows] = member.perturb(model, images[rows], labels[rows], threat, seed=seed, positions=places)
        return found


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), evaluation_mode(model):
        return model(images)  # type: ignore[no-any-return]
