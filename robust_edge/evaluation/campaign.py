"""The evaluation loop: a sequence of attacks, batch by batch, whose candidates are scored outside the attack.

A candidate counts only after it has been projected into the ball and scored again by the evaluated network.
The candidates of a batch depend only on its images and the seed. Therefore batches can be computed by several
processes, and an interrupted evaluation can be resumed, with identical results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, AttackSet, Batch
from robust_edge.attacks.ball import confine
from robust_edge.attacks.logits import classes_of
from robust_edge.attacks.table import is_own
from robust_edge.data import Split
from robust_edge.parallel.ranks import Ranks
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.batches import batches_of
from robust_edge_runtimes.core.decode import read_json
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError
from robust_edge_runtimes.core.files import write_json

Progress = Callable[[int, int], None]
"""Called with (images done, total number of images)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One attack of a campaign.

    Attributes:
        name: unique within the campaign.
        attack: computes the candidates.
        threat: the ball into which the candidates are projected.
    """

    name: str
    attack: Attack
    threat: Threat


def stages_of(name: str, attack: Attack, threat: Threat, classes: int) -> tuple[Stage, ...]:
    """The stages of an attack: one for a single attack, one for each member of a set of attacks.

    Args:
        name: of the attack.
        attack: a single attack or an AttackSet.
        threat: the ball.
        classes: K, the number of logits.

    Raises:
        InputError: there are too few classes for an attack of the set.
    """
    members = attack.members(classes) if isinstance(attack, AttackSet) else {name: attack}
    return tuple(Stage(key, member, threat) for key, member in members.items())


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Campaign:
    """The attacks, networks and images of one evaluation.

    Attributes:
        model: the network that the attacks query.
        evaluated: the J networks that classify the candidates; often `model` alone. The first one determines which
            images are still attacked.
        split: N images, on the networks' device.
        positions: (N,) indices of these images in the test split.
        stages: the S attacks, in order.
        cumulative: whether a stage attacks only the images that the first evaluated network still classifies correctly
            after the earlier stages; otherwise every stage attacks all images.
        batch_size: number of images per batch.
        identity: a hash of everything that the results depend on; a state file with another identity is refused.
        seed: of the attacks.
    """

    model: nn.Module
    evaluated: tuple[nn.Module, ...]
    split: Split
    positions: tuple[int, ...]
    stages: tuple[Stage, ...]
    cumulative: bool
    batch_size: int
    identity: str
    seed: int = 0

    def batch(self, rows: Tensor) -> Batch:
        """The images at these rows of the split."""
        positions = [self.positions[row] for row in rows.tolist()]
        return Batch(self.split.floats(rows), self.split.labels[rows], positions, self.seed)


@dataclasses.dataclass(frozen=True, eq=False)
class CampaignResult:
    """The result of a campaign, on the CPU.

    Attributes:
        clean: (J, N) bool, whether the network classifies the clean image correctly.
        robust: (S, J, N) bool, whether it classifies both the clean image and the stage's candidate correctly; False
            where the stage did not attack the image.
        attacked: (S, N) bool, whether the stage attacked the image.
        outside: (S,) numbers of candidates that lay outside the ball or the pixel range and were projected back.
        resumed: number of batches that were read from a state file.
    """

    clean: Tensor
    robust: Tensor
    attacked: Tensor
    outside: tuple[int, ...]
    resumed: int


def run_campaign(
    campaign: Campaign,
    *,
    state: Path | None = None,
    ranks: Ranks | None = None,
    stop: Callable[[Tensor], bool] | None = None,
    progress: Progress | None = None,
) -> CampaignResult:
    """Run all stages.

    Args:
        campaign: the attacks, networks and images.
        state: a file that is rewritten after every batch and read at the start. It stays, since all would be lost if
            the process were killed before the caller has written the result.
        ranks: the processes that share the batches.
        stop: called with the (J, N) `robust` of a finished stage; returns True to skip the remaining stages.
        progress: called with (images done, total number of images), counted over all stages.

    Raises:
        InputError: the split has no images.
    """
    total = len(campaign.split)
    if total == 0:
        raise InputError("no images to evaluate; raise `limit`, or check the data set")
    ranks = ranks or Ranks()
    state_file = _StateFile(state if ranks.writes else None, campaign.identity)
    state_file.done = ranks.gather(state_file.done)[0]  # only rank 0 reads the file
    resumed = sum(len(batches) for batches in state_file.done.values())
    clean = torch.stack([_is_right(model, campaign) for model in campaign.evaluated])
    unbroken, robust, attacked, outside = clean[0].clone(), [], [], []
    for index, stage in enumerate(campaign.stages):
        rows = unbroken.nonzero().squeeze(1) if campaign.cumulative else torch.arange(total)
        results = _run_stage(campaign, stage, rows, state_file, ranks, _reporter(progress, index, campaign))
        stage_robust, stage_attacked = torch.zeros_like(clean), torch.zeros(total, dtype=torch.bool)
        stage_attacked[rows] = True
        if len(rows):
            right = torch.cat([_bool_rows(batch["held"]) for batch in results], 1)
            stage_robust[:, rows] = right & clean[:, rows]
        robust.append(stage_robust)
        attacked.append(stage_attacked)
        outside.append(sum(int(batch["outside"]) for batch in results))
        unbroken = unbroken & stage_robust[0]
        if stop is not None and stop(stage_robust):
            break
    if progress is not None:
        progress(_total_images(campaign), _total_images(campaign))
    return CampaignResult(clean, torch.stack(robust), torch.stack(attacked), tuple(outside), resumed)


def _run_stage(
    campaign: Campaign, stage: Stage, rows: Tensor, state_file: _StateFile, ranks: Ranks, report: Callable[[int], None]
) -> list[dict[str, Any]]:
    """The results of all batches, in order. The ranks compute one batch each before the state file is written."""
    batches = list(rows.split(campaign.batch_size)) if len(rows) else []
    done = state_file.done.setdefault(stage.name, {})
    missing = [index for index in range(len(batches)) if str(index) not in done]
    for first in range(0, len(missing), ranks.world):
        indices = missing[first : first + ranks.world]
        own = indices[ranks.rank] if ranks.rank < len(indices) else None
        own_result = None if own is None else _run_batch(campaign, stage, batches[own])
        for index, result in zip(indices, ranks.gather(own_result), strict=False):
            done[str(index)] = result
        state_file.save()
        report(min(len(done) * campaign.batch_size, len(rows)))
    return [done[str(index)] for index in range(len(batches))]


def _run_batch(campaign: Campaign, stage: Stage, rows: Tensor) -> dict[str, Any]:
    """Attack a batch.

    Returns:
        `held`: for each evaluated network a digit per image, 1 if it is right on the candidate; `outside`: the number
        of candidates that had to be projected back.
    """
    batch = campaign.batch(rows)
    projected, outside = confine(candidates(campaign.model, stage, batch), batch.images, stage.threat)
    right = [predictions(model, projected) == batch.labels for model in campaign.evaluated]
    return {"held": [digits(row) for row in right], "outside": int(outside.sum())}


def digits(right: Tensor) -> str:
    """A digit per image of an (N,) bool tensor: 1 for True, 0 for False."""
    return "".join("01"[bit] for bit in right.int().tolist())


def candidates(model: nn.Module, stage: Stage, batch: Batch) -> Tensor:
    """The candidates that the attack of a stage returns for a batch, detached.

    Raises:
        InputError: the user's own attack failed, or returned something other than one candidate per image.
    """
    attack = stage.attack
    try:
        with torch.enable_grad():
            returned = attack.perturb(model, batch, stage.threat)
    except Exception as cause:
        if not is_own(attack) or isinstance(cause, RobustEdgeError):
            raise
        raise InputError(f"attack {stage.name!r} failed ({type(cause).__name__}: {cause})") from cause
    images = batch.images
    if not isinstance(returned, Tensor) or (returned.shape, returned.dtype) != (images.shape, images.dtype):
        is_tensor = isinstance(returned, Tensor)
        shown = f"{returned.dtype} {tuple(returned.shape)}" if is_tensor else type(returned).__name__
        raise InputError(f"attack {stage.name!r} must return {images.dtype} {tuple(images.shape)}, it returned {shown}")
    return returned.detach()


def part_of(progress: Progress | None, turn: int, turns: int) -> Progress | None:
    """The progress callback for campaign `turn` of `turns` campaigns of about the same duration."""
    if progress is None:
        return None
    return lambda done, total: progress(turn * total + done, turns * total)


def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """(N,) predicted classes; −1 where a logit is NaN or infinite, so that the image counts as wrong."""
    with torch.no_grad(), evaluation_mode(model):
        return classes_of(model(images))


def _is_right(model: nn.Module, campaign: Campaign) -> Tensor:
    """(N,) bool: the model classifies the clean image correctly."""
    split = campaign.split
    parts = batches_of(len(split), campaign.batch_size)
    return torch.cat([(predictions(model, split.floats(part)) == split.labels[part]).cpu() for part in parts])


def _bool_rows(rows: Sequence[str]) -> Tensor:
    return torch.tensor([[bit == "1" for bit in row] for row in rows])


def _reporter(progress: Progress | None, stage: int, campaign: Campaign) -> Callable[[int], None]:
    total = _total_images(campaign)

    def report(done: int) -> None:
        if progress is not None:
            progress(min(stage * len(campaign.split) + done, total - 1), total)

    return report


def _total_images(campaign: Campaign) -> int:
    """Number of images over all stages if no image is ever broken."""
    return len(campaign.stages) * len(campaign.split)


class _StateFile:
    """The results of the batches that are finished, by stage and by number of the batch."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path, self._identity = path, identity
        self.done: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            content = read_json(path)
            if not isinstance(content, dict) or content.get("identity") != identity:
                raise InputError(f"{path} belongs to another evaluation; delete it to start this one again")
            self.done = content["stages"]

    def save(self) -> None:
        if self._path is not None:
            write_json(self._path, {"identity": self._identity, "stages": self.done})
