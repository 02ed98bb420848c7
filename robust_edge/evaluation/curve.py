"""Robust accuracy at increasing ε.

Source: Marshall 2020, Algorithm 2: a fixed number of steps, increasing ε, stop below the chance level.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from robust_edge.attacks.attack import Attack
from robust_edge.evaluation.accuracy import Accuracy, accuracy_of
from robust_edge.evaluation.campaign import Campaign, Progress, Stage, candidates, digits, predictions, run_campaign
from robust_edge.parallel.ranks import Ranks
from robust_edge_runtimes.attacks.threat import LINF, Threat

PANEL_IMAGES = 6


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one ε.

    Attributes:
        held: a digit per image: 1 if it is right when clean and under attack, otherwise 0; empty in older records.
    """

    eps: float
    accuracy: Accuracy
    held: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """A few images at every ε of the curve.

    Attributes:
        pixels: for each ε, for each image, its values in [0, 1] as nested lists (C, H, W).
        truth: true class index of each image.
        predicted: for each ε, the predicted class index of each image.
    """

    pixels: tuple[tuple[list, ...], ...]  # type: ignore[type-arg]
    truth: tuple[int, ...]
    predicted: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class CurveResult:
    """The accuracies of Algorithm 2, in order of ε; the last one may be below the chance level.

    Attributes:
        positions: indices of the images in the test split; empty in older records.
        resumed: number of batches that an interrupted process had finished.
        title: the attack's name in a text; empty in older records.
    """

    steps: int | None
    seed: int
    chance: float
    points: tuple[CurvePoint, ...]
    panel: Panel
    resumed: int = 0
    positions: tuple[int, ...] = ()
    norm: str = LINF
    title: str = ""


def curve_stages(attack: Attack, epsilons: Sequence[float] | None = None) -> tuple[Stage, ...]:
    """The same attack at increasing radii, the first one 0; None for the attack's own radii."""
    radii = attack.radii if epsilons is None else epsilons
    return tuple(Stage(f"eps={eps:g}", attack, Threat(eps)) for eps in radii)


def evaluate_curve(
    campaign: Campaign,
    classes: int,
    *,
    panel_images: int = PANEL_IMAGES,
    state: Path | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
) -> CurveResult:
    """Run Algorithm 2: every image is attacked at every ε.

    Args:
        campaign: one network and the stages of `curve_stages`; not cumulative.
        classes: K; the run stops once the accuracy is below 1/K.
        panel_images: number of images to store for the figure.
        state, ranks, progress: see `run_campaign`.
    """
    finished = run_campaign(
        campaign,
        state=state,
        ranks=ranks,
        stop=lambda robust: float(robust.double().mean()) < 1 / classes,
        progress=progress,
    )
    points = tuple(
        CurvePoint(stage.threat.eps, accuracy_of(robust), digits(robust))
        for stage, robust in zip(campaign.stages, finished.robust[:, 0], strict=False)
    )
    attack = campaign.stages[0].attack
    return CurveResult(
        steps=getattr(attack, "steps", None),
        seed=campaign.seed,
        chance=1 / classes,
        points=points,
        panel=_panel(campaign, min(panel_images, len(campaign.split)), len(points)),
        resumed=finished.resumed,
        positions=campaign.positions,
        title=attack.title,
    )


def _panel(campaign: Campaign, images: int, radii: int) -> Panel:
    """Attack the first images at the first radii of the campaign."""
    model, rows = campaign.model, torch.arange(images)
    batches = [campaign.batch(part) for part in rows.split(campaign.batch_size)]
    pictures, predicted = [], []
    for stage in campaign.stages[:radii]:
        attacked = [candidates(model, stage, batch) for batch in batches]
        predicted.append(tuple(label for part in attacked for label in predictions(model, part).tolist()))
        pictures.append(tuple(image.tolist() for part in attacked for image in part.cpu()))
    return Panel(tuple(pictures), tuple(campaign.split.labels[rows].tolist()), tuple(predicted))
