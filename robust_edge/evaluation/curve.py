"""Accuracy against an adversary that grows stronger.

Source: Marshall 2020, Algorithm 2: a fixed number of steps, rising ε, stop below chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from robust_edge.attacks.curve import Curve
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import BATCH, Accuracy, accuracy
from robust_edge.evaluation.campaign import Campaign, Progress, Stage, candidates, predictions, run_campaign
from robust_edge.parallel.ranks import Ranks
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.batches import batches_of

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
    attack: Curve | None = None,
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
        attack: what is run at every ε; None for the default of Curve.
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
    attack = attack or Curve()
    stages = tuple(Stage(f"eps={eps:g}", attack, Threat(eps)) for eps in epsilons)
    places = tuple(range(len(split)) if positions is None else positions)
    campaign = Campaign(
        model=model,
        judges=(model,),
        split=split,
        positions=places,
        stages=stages,
        cumulative=False,
        batch_size=batch_size,
        identity=identity,
        seed=seed,
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
    panel = _panel(campaign, split.first(panel_images), len(points))
    return CurveResult(attack.steps, seed, 1 / classes, tuple(points), panel, tally.resumed, places)


def _panel(campaign: Campaign, shown: Split, radii: int) -> Panel:
    """The first images at the first so many radii."""
    model, batch = campaign.model, campaign.batch_size
    rows = list(batches_of(len(shown), batch))
    pictures, predicted = [], []
    for stage in campaign.stages[:radii]:
        seen = [
            candidates(
                model,
                stage,
                shown.floats(row),
                shown.labels[row],
                seed=campaign.seed,
                positions=campaign.positions[row],
            )
            for row in rows
        ]
        predicted.append(tuple(label for part in seen for label in predictions(model, part).tolist()))
        pictures.append(tuple(image.tolist() for part in seen for image in part.cpu()))
    return Panel(tuple(pictures), tuple(shown.labels.tolist()), tuple(predicted))
