"""Is a robustness figure worth its digits? Signs of masked gradients and of a network that is not what it seems.

Source: the checks of Athalye et al. 2018, Carlini et al. 2019 and AutoAttack's own warnings, run on a few of the
evaluated images before and on all of them after the attack. A raised check is a flag, which stands beside the figure
wherever it is shown. The table of flags is
`robust_edge_runtimes.verdict.flags`; the checks that `verify` shares are in `robust_edge_runtimes.verdict.checks`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack
from robust_edge.attacks.ball import TOLERANCE
from robust_edge.attacks.logits import margins
from robust_edge.attacks.modes import evaluation_mode, only_input_gradients
from robust_edge.attacks.pgd import Loss, Pgd, cross_entropy
from robust_edge.attacks.square import Square, square_attack
from robust_edge.data import Split
from robust_edge.evaluation.campaign import predictions
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.evaluation.outcome import HELD, AttackResult
from robust_edge_runtimes.attacks.threat import L2, LINF, Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.scoring import Score
from robust_edge_runtimes.verdict.checks import (
    ALONE,
    batch_dependent,
    black_box_beats_white_box,
    non_finite,
    randomised,
    rounded_logits,
    saturated_gradient,
    softmax_output,
    zero_gradient,
)
from robust_edge_runtimes.verdict.flags import Check

PROBE_IMAGES = 64
REPEATS = 5
VANISHED = 1e-12  # of the margin's gradient: what float32 leaves of a cross-entropy that is saturated
SHARE = 0.05  # of the probed images
STEPS = (1, 5, 20)
QUERIES = 100
TRANSFER_GAIN = 0.002  # of all images
LARGE = {LINF: (0.5, 1.0)}


@dataclasses.dataclass(frozen=True)
class Audit:
    """All checks of one network under one attack."""

    images: int
    checks: tuple[Check, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the raised checks."""
        return tuple(check.name for check in self.checks if check.raised)

    @property
    def clean(self) -> bool:
        """No check is raised, and there is at least one."""
        return bool(self.checks) and not self.flags

    def with_checks(self, more: tuple[Check, ...]) -> Audit:
        """The same with further answers."""
        return Audit(self.images, self.checks + more)


def audit_model(
    model: nn.Module, split: Split, *, threat: Threat, seed: int = 0, batch_size: int = PROBE_IMAGES
) -> Audit:
    """Probe a network.

    Args:
        model: as it is handed to the attack; its mode is part of what is checked.
        split: the evaluated images, on the model's device; the first right ones are probed.
        threat: the ball of the figure.
        seed: of the probing attacks.
        batch_size: images at a time.

    Raises:
        InputError: no images.
    """
    if len(split) == 0:
        raise InputError("no images to audit with; raise --limit, or check the data set")
    checks = [_training_mode(model)]
    images, labels = split.floats(slice(0, PROBE_IMAGES)), split.labels[:PROBE_IMAGES]
    with evaluation_mode(model):
        checks += _outputs(model, images, batch_size)
        right = torch.cat([predictions(model, part) for part in images.split(batch_size)]) == labels
        images, labels = images[right], labels[right]
        if not len(images):
            checks.append(Check("nothing_right", raised=True, detail="no probed image is right without an attack"))
            return Audit(0, tuple(checks))
        probe = _Probe(model, images, labels, threat, seed, batch_size)
        checks += _gradients(probe)
        checks += [_more_steps(probe), _large_radius(probe), _black_box(probe)]
    return Audit(len(images), tuple(checks))


def audit_result(result: AttackResult, attack: Attack) -> tuple[Check, ...]:
    """What the outcome of an attack says."""
    checks = [_nothing_attacked(result), _outside(result)]
    stages = {stage.name: stage for stage in result.stages}
    if "square" in stages and len(stages) > 1:
        checks.append(black_box_beats_white_box(stages["square"].broken, result.clean.images, exact=True))
    return (*checks, *audit_steps(attack))


def audit_steps(attack: Attack) -> tuple[Check, ...]:
    """A gradient attack of few steps shows little; nothing is asked of an attack that names no least number."""
    steps, least = getattr(attack, "steps", None), attack.few_steps
    if steps is None or not least:
        return ()
    return (Check("few_steps", raised=steps < least, detail=f"{steps} gradient steps, {least} are the least"),)


def audit_oblivious(adaptive: AttackResult, oblivious: Sequence[AttackResult]) -> Check:
    """Whoever knows the gradients should leave nothing to those who do not."""
    outcomes = zip(adaptive.outcomes, *(result.outcomes for result in oblivious), strict=True)
    gained = sum(own == HELD and any(other != HELD for other in others) for own, *others in outcomes)
    detail = f"images made on other networks break {gained} image(s) that its own gradients leave"
    return audit_transfer(gained, adaptive.clean.images, detail)


def audit_transfer(gained: int, images: int, detail: str) -> Check:
    """Images made on other networks are a black box too.

    Args:
        gained: how many of the network's images they break more than its own gradients.
        images: out of how many.
        detail: what was compared.
    """
    return Check("transfer_beats_white_box", raised=gained > max(1, TRANSFER_GAIN * images), detail=detail)


def audit_memory(memory: Memory) -> Check:
    """A bound that was promised and not kept."""
    return Check("memory_exceeded", raised=memory.held is False, detail=memory.line())


def _training_mode(model: nn.Module) -> Check:
    left = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    detail = f"{len(left)} module(s) in training mode" + (f", as {', '.join(left[:3])}" if left else "")
    return Check("training_mode", raised=bool(left), detail=detail)


def _outputs(model: nn.Module, images: Tensor, batch_size: int) -> list[Check]:
    """The checks of logits alone, which `verify` makes of artifacts too."""
    score, pixels = TorchOracle(model, batch=batch_size).logits, images.float().cpu().numpy()
    first, *again = [score(pixels) for _ in range(REPEATS)]
    return [
        non_finite(np.concatenate([first, *again])),
        randomised(first, *again),
        softmax_output(first),
        rounded_logits(first),
        _batch_dependent(model, score, pixels[:ALONE], first[:ALONE]),
    ]


def _batch_dependent(model: nn.Module, score: Score, images: np.ndarray, together: np.ndarray) -> Check:
    """Statistics of the batch make one image's answer depend on the others; buffers show it where logits do not."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    check = batch_dependent(np.concatenate([score(image[None]) for image in images]), together)
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if not changed:
        return check
    return Check(check.name, raised=True, detail=f"{check.detail}; a pass changes {', '.join(changed[:3])}")


def _gradients(probe: _Probe) -> Iterator[Check]:
    margin, entropy = probe.slopes(lambda z, y: margins(z, y).sum()), probe.slopes(cross_entropy)
    zero = float((margin == 0).float().mean())
    detail = f"the margin's gradient is zero on {100 * zero:.0f}% of the probed images"
    yield zero_gradient(zero, detail)
    saturated = float(((margin > 0) & (entropy <= VANISHED * margin)).float().mean())
    detail = f"the cross-entropy's gradient has vanished on {100 * saturated:.0f}% of them"
    yield saturated_gradient(saturated, detail)


@dataclasses.dataclass(frozen=True, eq=False)
class _Probe:
    """Right images and short attacks on them."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    threat: Threat
    seed: int
    batch_size: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels, as many at a time as memory allows."""
        return zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)

    def slopes(self, loss: Loss) -> Tensor:
        """(N,) length of a loss's gradient at each image; 0 where there is none, or none that is a number."""
        sizes = []
        with only_input_gradients(self.model):
            for images, labels in self.batches():
                points = images.detach().clone().requires_grad_(True)
                value = loss(self.model(points), labels)
                gradient = torch.autograd.grad(value, points, allow_unused=True)[0] if value.requires_grad else None
                gradient = torch.zeros_like(images) if gradient is None else gradient
                sizes.append(gradient.flatten(1).nan_to_num(0, 0, 0).norm(dim=1))
        return torch.cat(sizes)

    def held(self, threat: Threat, steps: int) -> Tensor:
        """(N,) bool: right under every iterate."""
        single = Pgd(steps=1, restarts=1, step_size=threat.eps, random_start=False)
        attack = Pgd(steps=steps, restarts=1) if steps > 1 else single
        right, done = [], 0
        for images, labels in self.batches():
            places = range(done, done + len(images))
            found = attack.perturb(self.model, images, labels, threat, seed=self.seed, positions=places)
            right.append(predictions(self.model, found) == labels)
            done += len(images)
        return torch.cat(right)

    def held_under_square(self) -> Tensor:
        """(N,) bool: right under a black box of a few queries."""
        generator, attack = torch.Generator().manual_seed(self.seed), Square(QUERIES)
        right = []
        for images, labels in self.batches():
            found = square_attack(self.model, images, labels, attack, self.threat, generator)
            right.append(predictions(self.model, found) == labels)
        return torch.cat(right)


def _more_steps(probe: _Probe) -> Check:
    held = [int(probe.held(probe.threat, steps).sum()) for steps in STEPS]
    helped = max(later - earlier for earlier, later in itertools.pairwise(held))
    counts = ", ".join(f"{count} after {steps}" for count, steps in zip(held, STEPS, strict=True))
    detail = f"of {len(probe.images)} right images {counts} step(s)"
    return Check("more_steps_help_the_model", raised=helped > max(1, SHARE * len(probe.images)), detail=detail)


def _large_radius(probe: _Probe) -> Check:
    """A radius at which every image can become every other one, or plain grey."""
    radii = LARGE.get(probe.threat.norm) or (float(probe.images[0].numel()) ** 0.5,)
    held = torch.ones(len(probe.images), dtype=torch.bool, device=probe.images.device)
    for eps in radii:
        held &= probe.held(dataclasses.replace(probe.threat, eps=eps), STEPS[-1])
    share = float(held.float().mean())
    detail = f"{100 * share:.0f}% of the right images survive ε = {' and '.join(f'{eps:g}' for eps in radii)}"
    return Check("survives_large_eps", raised=share > SHARE, detail=detail)


def _black_box(probe: _Probe) -> Check:
    name = "black_box_beats_gradients"
    if probe.threat.norm == L2:
        return Check(name, raised=None, detail="not asked: the probing black box moves in ℓ∞ only")
    gained = int((probe.held(probe.threat, STEPS[-1]) & ~probe.held_under_square()).sum())
    detail = f"{QUERIES} queries of Square break {gained} image(s) that {STEPS[-1]} gradient steps do not"
    return Check(name, raised=gained > max(1, SHARE * len(probe.images)), detail=detail)


def _nothing_attacked(result: AttackResult) -> Check:
    attacked = result.stages[0].attacked if result.stages else 0
    return Check("nothing_attacked", raised=attacked == 0, detail=f"{attacked} image(s) were right and so attacked")


def _outside(result: AttackResult) -> Check:
    count = sum(stage.outside for stage in result.stages)
    detail = f"{count} candidate(s) lay farther than {TOLERANCE:g} outside the ball and were brought back"
    share = count / max(sum(stage.attacked for stage in result.stages), 1)
    return Check("left_the_ball", raised=share > SHARE, detail=detail)
