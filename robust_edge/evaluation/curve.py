"""Accuracy against an adversary that grows stronger.

Source: Marshall 2020, Algorithm 2: a fixed number of steps, rising ε, stop below chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import nn

from robust_edge.attacks.pgd import Pgd, attack_images, evaluation_mode
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import Accuracy, evaluate_pgd

EPSILONS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one ε."""

    eps: float
    accuracy: Accuracy


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """A few images at every ε of the curve.

    Attributes:
        pixels: for each ε, for each image, its values in [0, 1] as nested lists (C, H, W).
        truth: class index of each image.
        predicted: for each ε, the class index the network gave each image.
    """

    pixels: tuple[tuple[list, ...], ...]  # type: ignore[type-arg]
    truth: tuple[int, ...]
    predicted: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class CurveResult:
    """Algorithm 2's scores, in order of ε; the last one may lie below chance."""

    steps: int
    seed: int
    chance: float
    points: tuple[CurvePoint, ...]
    panel: Panel


def evaluate_curve(
    model: nn.Module,
    split: Split,
    classes: int,
    *,
    steps: int = 100,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    panel_images: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> CurveResult:
    """Run Algorithm 2.

    Args:
        model: raw pixels to logits.
        split: on the model's device.
        classes: K; the run stops once the accuracy is below 1/K.
        steps: gradient steps at every ε.
        epsilons: rising, beginning with 0.
        seed: of the random starts.
        panel_images: how many images to keep for the picture.
        progress: called with (ε done, ε in all).
    """
    points: list[CurvePoint] = []
    shown = split.first(panel_images)
    pictures, predictions = [], []
    for index, eps in enumerate(epsilons):
        attack = Pgd(eps=eps, steps=steps)
        points.append(CurvePoint(eps, evaluate_pgd(model, split, attack, seed=seed).robust))
        generator = torch.Generator().manual_seed(seed)
        seen = attack_images(model, shown.floats(slice(None)), shown.labels, attack, generator).images
        with torch.no_grad(), evaluation_mode(model):
            predictions.append(tuple(model(seen).argmax(1).tolist()))
        pictures.append(tuple(image.tolist() for image in seen.cpu()))
        if points[-1].accuracy.value < 1 / classes:
            break
        if progress is not None:
            progress(index + 1, len(epsilons))
    if progress is not None:
        progress(len(epsilons), len(epsilons))
    panel = Panel(tuple(pictures), tuple(shown.labels.tolist()), tuple(predictions))
    return CurveResult(steps, seed, 1 / classes, tuple(points), panel)
