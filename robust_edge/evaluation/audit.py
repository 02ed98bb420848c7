"""Checks that a robust accuracy is valid: signs of masked gradients and of a network in training mode.

Source: the checks of Athalye et al. 2018, Carlini et al. 2019 and AutoAttack's own warnings. Some run on a few of the
evaluated images before the attack, others on all of them after it. A raised check is a validity flag, which is shown
beside the accuracy in every table. The table of flags is `robust_edge_runtimes.verdict.flags`; the checks that
`verify` uses, too, are in `robust_edge_runtimes.verdict.checks`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, Batch
from robust_edge.attacks.ball import TOLERANCE
from robust_edge.attacks.fgsm import Fgsm
from robust_edge.attacks.input_gradients import only_input_gradients
from robust_edge.attacks.logits import margins
from robust_edge.attacks.pgd import Loss, Pgd, cross_entropy
from robust_edge.attacks.square import Square
from robust_edge.data import Split
from robust_edge.evaluation.campaign import predictions
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.evaluation.outcome import ROBUST, AttackResult
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks.threat import L2, LINF, Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.scoring import Score
from robust_edge_runtimes.verdict.checks import (
    SINGLE_IMAGES,
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
from robust_edge_runtimes.verdict.measurement import LOGITS

PROBE_IMAGES = 64
REPEATS = 5
VANISHED = 1e-12  # ratio of the gradient norms of cross-entropy and margin, below which the softmax is saturated
TOLERATED_SHARE = 0.05  # fraction of the probed images for which a check may fail without being raised
STEPS = (1, 5, 20)  # numbers of PGD steps that are compared
PROBE_QUERIES = 100  # of the Square attack, per image
TRANSFER_GAIN = 0.002  # fraction of the images that transferred attacks may break beyond a white-box attack
LARGE_EPS = {LINF: (0.5, 1.0)}  # radii at which no network can be robust


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
        """Whether there is at least one check, and none is raised."""
        return bool(self.checks) and not self.flags

    def with_checks(self, more: tuple[Check, ...]) -> Audit:
        """A copy with additional checks."""
        return Audit(self.images, self.checks + more)


def audit_model(
    model: nn.Module, split: Split, *, threat: Threat, seed: int = 0, batch_size: int = PROBE_IMAGES
) -> Audit:
    """Check a network on a few images before it is attacked.

    Args:
        model: the network in the mode in which it will be attacked; training mode raises a flag.
        split: the evaluated images, on the model's device; the first PROBE_IMAGES of them are used.
        threat: the ball of the evaluation.
        seed: of the short attacks that the checks run.
        batch_size: number of images per forward pass.

    Raises:
        InputError: the split has no images.
    """
    if len(split) == 0:
        raise InputError("no images to audit with; raise `limit`, or check the data set")
    checks = [_training_mode(model)]
    images, labels = split.floats(slice(0, PROBE_IMAGES)), split.labels[:PROBE_IMAGES]
    with evaluation_mode(model):
        checks += _outputs(model, images, batch_size)
        right = torch.cat([predictions(model, part) for part in images.split(batch_size)]) == labels
        images, labels = images[right], labels[right]
        if not len(images):
            checks.append(Check("nothing_right", raised=True, detail="no probed image is right without an attack"))
            return Audit(0, tuple(checks))
        probe = _Probe(model, Batch(images, labels, range(len(images)), seed), threat, batch_size)
        checks += _gradients(probe)
        checks += [_more_steps(probe), _large_radius(probe), _black_box(probe)]
    return Audit(len(images), tuple(checks))


def audit_result(result: AttackResult, attack: Attack) -> tuple[Check, ...]:
    """The checks that need the result of an attack."""
    checks = [_nothing_attacked(result), _outside(result)]
    black_boxes = [stage.broken for stage in result.stages if stage.works_with == LOGITS]
    if black_boxes and len(black_boxes) < len(result.stages):
        checks.append(black_box_beats_white_box(sum(black_boxes), result.clean.images, exact=True))
    return (*checks, *audit_steps(attack))


def audit_steps(attack: Attack) -> tuple[Check, ...]:
    """Check that the attack has at least `few_steps` steps; no check for attacks without steps or without a minimum."""
    steps, least = getattr(attack, "steps", None), attack.few_steps
    if steps is None or not least:
        return ()
    return (Check("few_steps", raised=steps < least, detail=f"{steps} gradient steps; at least {least} are needed"),)


def audit_oblivious(adaptive: AttackResult, oblivious: Sequence[AttackResult]) -> Check:
    """Check that attacks on the members do not break images that withstand the attack on the average itself."""
    outcomes = zip(adaptive.outcomes, *(result.outcomes for result in oblivious), strict=True)
    gained = sum(own == ROBUST and any(other != ROBUST for other in others) for own, *others in outcomes)
    detail = f"attack images made on other networks break {gained} image(s) that the white-box attack does not break"
    return audit_transfer(gained, adaptive.clean.images, detail)


def audit_transfer(gained: int, images: int, detail: str) -> Check:
    """Check that transferred attacks, which use no gradients of the network, are not stronger than a white-box attack.

    Args:
        gained: number of images that transferred attacks break beyond those of the white-box attack.
        images: number of evaluated images.
        detail: description of the comparison for the user.
    """
    return Check("transfer_beats_white_box", raised=gained > max(1, TRANSFER_GAIN * images), detail=detail)


def audit_memory(memory: Memory) -> Check:
    """Check that the peak memory stayed within the announced bound."""
    return Check("memory_exceeded", raised=memory.within_bound is False, detail=memory.summary())


def _training_mode(model: nn.Module) -> Check:
    training = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    detail = f"{len(training)} module(s) in training mode" + (f": {', '.join(training[:3])}" if training else "")
    return Check("training_mode", raised=bool(training), detail=detail)


def _outputs(model: nn.Module, images: Tensor, batch_size: int) -> list[Check]:
    """The checks that need only logits, which `verify` also applies to artifacts."""
    score, pixels = TorchOracle(model, batch=batch_size).logits, images.float().cpu().numpy()
    first, *again = [score(pixels) for _ in range(REPEATS)]
    return [
        non_finite(np.concatenate([first, *again])),
        randomised(first, *again),
        softmax_output(first),
        rounded_logits(first),
        _batch_dependent(model, score, pixels[:SINGLE_IMAGES], first[:SINGLE_IMAGES]),
    ]


def _batch_dependent(model: nn.Module, score: Score, images: np.ndarray, together: np.ndarray) -> Check:
    """Check that an image's logits do not depend on the other images of the batch, and that no buffer changes."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    check = batch_dependent(np.concatenate([score(image[None]) for image in images]), together)
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if not changed:
        return check
    return Check(check.name, raised=True, detail=f"{check.detail}; a forward pass changes {', '.join(changed[:3])}")


def _gradients(probe: _Probe) -> Iterator[Check]:
    margin = probe.gradient_norms(lambda logits, labels: margins(logits, labels).sum())
    entropy = probe.gradient_norms(cross_entropy)
    zero = float((margin == 0).float().mean())
    detail = f"the margin's gradient is zero on {100 * zero:.0f}% of the probed images"
    yield zero_gradient(zero, detail)
    saturated = float(((margin > 0) & (entropy <= VANISHED * margin)).float().mean())
    detail = f"the cross-entropy's gradient has vanished on {100 * saturated:.0f}% of the probed images"
    yield saturated_gradient(saturated, detail)


@dataclasses.dataclass(frozen=True, eq=False)
class _Probe:
    """Correctly classified images, and short attacks on them."""

    model: nn.Module
    batch: Batch
    threat: Threat
    batch_size: int

    def __len__(self) -> int:
        return len(self.batch.labels)

    def batches(self) -> Iterator[Batch]:
        """The images in batches of `batch_size`."""
        return map(self.batch.take, torch.arange(len(self)).split(self.batch_size))

    def gradient_norms(self, loss: Loss) -> Tensor:
        """(N,) norm of the gradient of a loss at each image; 0 where there is no gradient, or it is not finite."""
        norms = []
        with only_input_gradients(self.model):
            for part in self.batches():
                points = part.images.detach().clone().requires_grad_(True)
                value = loss(self.model(points), part.labels)
                gradient = torch.autograd.grad(value, points, allow_unused=True)[0] if value.requires_grad else None
                gradient = torch.zeros_like(points) if gradient is None else gradient
                norms.append(gradient.flatten(1).nan_to_num(0, 0, 0).norm(dim=1))
        return torch.cat(norms)

    def robust_under(self, attack: Attack, threat: Threat | None = None) -> Tensor:
        """(N,) bool: still right under an attack, by default in the ball of the evaluation."""
        model, ball = self.model, threat or self.threat
        return torch.cat([predictions(model, attack.perturb(model, p, ball)) == p.labels for p in self.batches()])


def _short_pgd(steps: int) -> Attack:
    """PGD of one random start; a single step is FGSM."""
    return Pgd(steps=steps, restarts=1) if steps > 1 else Fgsm()


def _more_steps(probe: _Probe) -> Check:
    """Check that an attack of more steps does not leave more images right."""
    robust = [int(probe.robust_under(_short_pgd(steps)).sum()) for steps in STEPS]
    increase = max(later - earlier for earlier, later in itertools.pairwise(robust))
    counts = ", ".join(f"{count} after {steps}" for count, steps in zip(robust, STEPS, strict=True))
    detail = f"of {len(probe)} images, still right are {counts} step(s)"
    return Check("more_steps_help_the_model", raised=increase > max(1, TOLERATED_SHARE * len(probe)), detail=detail)


def _large_radius(probe: _Probe) -> Check:
    """Check that the attack succeeds at a radius at which any image can become plain grey or any other image."""
    radii = LARGE_EPS.get(probe.threat.norm) or (float(probe.batch.images[0].numel()) ** 0.5,)
    attack, threats = _short_pgd(STEPS[-1]), [Threat(eps, probe.threat.norm) for eps in radii]
    robust = torch.stack([probe.robust_under(attack, threat) for threat in threats]).all(0)
    share = float(robust.float().mean())
    detail = f"{100 * share:.0f}% of the right images survive ε = {' and '.join(f'{eps:g}' for eps in radii)}"
    return Check("survives_large_eps", raised=share > TOLERATED_SHARE, detail=detail)


def _black_box(probe: _Probe) -> Check:
    """Check that a short black-box attack does not break images that a gradient attack does not break."""
    name = "black_box_beats_gradients"
    if probe.threat.norm == L2:
        return Check(name, raised=None, detail="not checked: Square is implemented for ℓ∞ only")
    left = probe.robust_under(_short_pgd(STEPS[-1])) & ~probe.robust_under(Square(queries=PROBE_QUERIES))
    gained = int(left.sum())
    detail = f"{PROBE_QUERIES} queries of Square break {gained} image(s) that {STEPS[-1]} gradient steps do not"
    return Check(name, raised=gained > max(1, TOLERATED_SHARE * len(probe)), detail=detail)


def _nothing_attacked(result: AttackResult) -> Check:
    attacked = result.stages[0].attacked if result.stages else 0
    return Check("nothing_attacked", raised=attacked == 0, detail=f"{attacked} image(s) were right without an attack")


def _outside(result: AttackResult) -> Check:
    count = sum(stage.outside for stage in result.stages)
    detail = f"{count} candidate(s) lay farther than {TOLERANCE:g} outside the ball and were projected back"
    share = count / max(sum(stage.attacked for stage in result.stages), 1)
    return Check("left_the_ball", raised=share > TOLERATED_SHARE, detail=detail)
