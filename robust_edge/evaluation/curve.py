"""Accuracy against an adversary that grows stronger.

Source: Marshall 2020, Algorithm 2: a fixed number of steps, rising ε, stop below chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from robust_edge.attacks.ball import LINF
from robust_edge.attacks.pgd import Pgd, attack_with_restarts
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import BATCH, Accuracy, accuracy
from robust_edge.evaluation.campaign import Campaign, Progress, Stage, predictions, run_campaign
from robust_edge.parallel.ranks import Ranks

EPSILONS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
PANEL_IMAGES = 6


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one ε.

    Attributes:
        held: a digit per image, 1 where it is right when clean and under attack; empty in older records.
    """

    eps: float
    accuracy: Accuracy
    held: str = ""


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
    """Algorithm 2's scores, in order of ε; the last one may lie below chance.

    Attributes:
        positions: of the images in the test split; empty in older records.
        resumed: batches that an earlier, killed process had done.
    """

    steps: int
    seed: int
    chance: float
    points: tuple[CurvePoint, ...]
    panel: Panel
    resumed: int = 0
    positions: tuple[int, ...] = ()
    norm: str = LINF


def evaluate_curve(
    model: nn.Module,
    split: Split,
    classes: int,
    *,
    steps: int = 100,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    panel_images: int = PANEL_IMAGES,
    positions: Sequence[int] | None = None,
    batch_size: int = BATCH,
    state: Path | None = None,
    identity: str = "",
    ranks: Ranks | None = None,
    progress: Progress | None = None,
) -> CurveResult:
    """Run Algorithm 2: every image is attacked at every ε.

    Args:
        model: raw pixels to logits.
        split: on the model's device.
        classes: K; the run stops once the accuracy is below 1/K.
        steps: gradient steps at every ε.
        epsilons: rising, beginning with 0.
        seed: of the random starts.
        panel_images: how many images to keep for the picture.
        positions: of the images in the test split; None where the split is all of it.
        batch_size: images at a time.
        state: see `run_campaign`.
        identity: see Campaign.
        ranks: the processes that share the work.
        progress: called with (done, total).
    """
    stages = tuple(_stage(model, eps, steps, seed) for eps in epsilons)
    places = tuple(range(len(split)) if positions is None else positions)
    campaign = Campaign(
        judges=(model,),
        split=split,
        positions=places,
        stages=stages,
        cumulative=False,
        batch_size=batch_size,
        identity=identity,
    )
    tally = run_campaign(
        campaign,
        state=state,
        ranks=ranks,
        stop=lambda held: float(held.double().mean()) < 1 / classes,
        progress=progress,
    )
    points = []
    for eps, held in zip(epsilons, tally.held[:, 0], strict=False):
        bits = "".join("01"[bit] for bit in held.int().tolist())
        points.append(CurvePoint(eps, accuracy(int(held.sum()), len(held)), bits))
    panel = _panel(model, split.first(panel_images), places, stages[: len(points)], batch_size)
    return CurveResult(steps, seed, 1 / classes, tuple(points), panel, tally.resumed, places)


def _panel(model: nn.Module, shown: Split, positions: Sequence[int], stages: Sequence[Stage], batch: int) -> Panel:
    rows = [slice(start, start + batch) for start in range(0, len(shown), batch)]
    pictures, predicted = [], []
    for stage in stages:
        seen = [stage.perturb(shown.floats(row), shown.labels[row], list(positions[: len(shown)][row])) for row in rows]
        predicted.append(tuple(label for part in seen for label in predictions(model, part).tolist()))
        pictures.append(tuple(image.tolist() for part in seen for image in part.cpu()))
    return Panel(tuple(pictures), tuple(shown.labels.tolist()), tuple(predicted))


def _stage(model: nn.Module, eps: float, steps: int, seed: int) -> Stage:
    attack = Pgd(eps=eps, steps=steps)

    def perturb(images: Tensor, labels: Tensor, positions: list[int]) -> Tensor:
        if eps == 0:
            return images
        return attack_with_restarts(model, images, labels, attack, seed=seed, positions=positions)

    return Stage(f"eps={eps:g}", eps, LINF, perturb)
