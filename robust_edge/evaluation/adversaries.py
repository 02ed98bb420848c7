"""From what a user asked for to the stages of a campaign."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge.attacks.autoattack import STANDARD, THESIS, AutoAttackSettings, ReferenceAttack, reference_attacks
from robust_edge.attacks.ball import L2, LINF, check_norm, start_points
from robust_edge.attacks.carlini_wagner import margin_loss
from robust_edge.attacks.pgd import Pgd, attack_with_restarts, cross_entropy, last_iterate
from robust_edge.evaluation.campaign import Perturb, Stage
from robust_edge.evaluation.outcome import StageSpec, ThreatSpec
from robust_edge_runtimes.core.errors import InputError, unknown_name

PGD, FGSM, CW, CURVE = "pgd", "fgsm", "cw", "curve"
AUTOATTACK, THESIS_AUTOATTACK = "autoattack", "thesis-autoattack"
ATTACKS = (PGD, CURVE, AUTOATTACK, THESIS_AUTOATTACK, CW, FGSM)
VERSIONS = {AUTOATTACK: STANDARD, THESIS_AUTOATTACK: THESIS}
DEFAULT_STEPS = {PGD: 50, CW: 50, CURVE: 100}
DEFAULT_RESTARTS = {PGD: 3, CW: 3}  # with one start PGD-50 stands up to 2.5 points above APGD on a benign network
IN_L2 = (PGD, AUTOATTACK, THESIS_AUTOATTACK)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversary:
    """One attack as the user names it, its defaults resolved.

    Attributes:
        attack: of ATTACKS, without the curve.
        eps: radius in pixel units on [0, 1], above 0.
        norm: `linf` or `l2`.
        steps: of `pgd` and `cw`.
        restarts: of `pgd` and `cw`.
        seed: of all random choices.
        last: keep the last iterate instead of the first that fooled; for images that other networks will judge.
    """

    attack: str
    eps: float
    norm: str = LINF
    steps: int = DEFAULT_STEPS[PGD]
    restarts: int = 1
    seed: int = 0
    last: bool = False

    def __post_init__(self) -> None:
        if self.attack not in ATTACKS:
            raise unknown_name("attack", self.attack, ATTACKS)
        check_radius(self.eps, check_norm(self.norm))
        if self.norm == L2 and self.attack not in IN_L2:
            raise InputError(f"--attack {self.attack} is defined in linf only; --norm l2 takes {', '.join(IN_L2)}")
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, it is {getattr(self, name)}")


def check_radius(eps: float, norm: str) -> None:
    """Raise InputError for a radius that allows nothing, or everything in ℓ∞."""
    if not 0 < eps < float("inf"):
        raise InputError(f"--eps must be above 0, it is {eps:g}; a radius of 0 is no attack")
    if norm == LINF and eps > 1:
        raise InputError(f"--eps must be at most 1 in linf, the range of pixels; it is {eps:g}, 8/255 is usual")


def stages_of(
    model: nn.Module, adversary: Adversary, *, classes: int, batch_size: int, device: torch.device
) -> tuple[ThreatSpec, tuple[Stage, ...]]:
    """The attacks bound to the network that they attack, and how the record names them.

    Raises:
        InputError: too few classes for AutoAttack's losses.
        ModuleNotFoundError: AutoAttack's reference implementation is not installed.
    """
    if adversary.attack in VERSIONS:
        settings = AutoAttackSettings(
            version=VERSIONS[adversary.attack],
            eps=adversary.eps,
            norm=adversary.norm,
            seed=adversary.seed,
            classes=classes,
        )
        attacks = reference_attacks(model, settings, device)
        stages = tuple(Stage(a.name, adversary.eps, adversary.norm, _ignoring_positions(a)) for a in attacks)
        specs = tuple(
            StageSpec(name=a.name, iterations=a.iterations, restarts=a.restarts, targets=a.targets) for a in attacks
        )
    else:
        stage, spec = _gradient_stage(model, adversary)
        stages, specs = (stage,), (spec,)
    threat = ThreatSpec(
        attack=adversary.attack,
        norm=adversary.norm,
        eps=adversary.eps,
        seed=adversary.seed,
        batch_size=batch_size,
        stages=specs,
    )
    return threat, stages


def _gradient_stage(model: nn.Module, adversary: Adversary) -> tuple[Stage, StageSpec]:
    fast = adversary.attack == FGSM
    attack = Pgd(
        eps=adversary.eps,
        steps=1 if fast else adversary.steps,
        step_size=adversary.eps if fast else None,
        random_start=not fast,
        norm=adversary.norm,
    )
    loss = margin_loss() if adversary.attack == CW else cross_entropy
    restarts = 1 if fast or adversary.last else adversary.restarts

    def perturb(images: Tensor, labels: Tensor, positions: list[int]) -> Tensor:
        if not adversary.last:
            return attack_with_restarts(
                model, images, labels, attack, seed=adversary.seed, positions=positions, restarts=restarts, loss=loss
            )
        start = images
        if attack.random_start:
            start = start_points(images, attack.eps, attack.norm, adversary.seed, positions, 0)
        return last_iterate(model, images, labels, attack, start, loss)

    spec = StageSpec(name=adversary.attack, iterations=attack.steps, restarts=restarts, step_size=attack.alpha)
    return Stage(adversary.attack, adversary.eps, adversary.norm, perturb), spec


def _ignoring_positions(attack: ReferenceAttack) -> Perturb:
    return lambda images, labels, positions: attack.perturb(images, labels)
