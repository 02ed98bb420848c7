"""The loop behind every robustness figure: attacks in order, batch by batch, evaluated outside the attack.

A candidate counts only after it has been projected into the ball and scored again by the evaluated network.
A batch's candidates depend on its images and the seed alone, so batches may be spread over processes and taken up
after a kill without a change in any figure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, AttackSet
from robust_edge.attacks.ball import confine
from robust_edge.attacks.logits import classes_of
from robust_edge.attacks.modes import evaluation_mode
from robust_edge.attacks.table import is_own
from robust_edge.data import Split
from robust_edge.parallel.ranks import Ranks
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.batches import batches_of
from robust_edge_runtimes.core.decode import read_json
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError
from robust_edge_runtimes.core.files import write_json

Progress = Callable[[int, int], None]
"""(done, the most that there can be)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One step of a campaign.

    Attributes:
        name: unique in its campaign.
        attack: makes the candidates.
        threat: the ball that candidates are held to.
    """

    name: str
    attack: Attack
    threat: Threat


def stages_of(name: str, attack: Attack, threat: Threat, classes: int) -> tuple[Stage, ...]:
    """An attack as one stage, a set of attacks as one stage each.

    Args:
        name: of the attack.
        attack: what to run.
        threat: the ball.
        classes: K, the number of logits.

    Raises:
        InputError: too few classes for an attack of a set.
    """
    members = attack.members(classes) if isinstance(attack, AttackSet) else {name: attack}
    return tuple(Stage(key, member, threat) for key, member in members.items())


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Campaign:
    """What is to be run.

    Attributes:
        model: the network that the attacks see.
        judges: the networks whose predictions count; the first one decides which images are still attacked.
        split: images on the judges' device.
        positions: (N,) of these images in the test split.
        stages: in order.
        cumulative: a stage attacks only what the first judge still has right after the stages before; otherwise
            every stage attacks everything.
        batch_size: images at a time.
        identity: names everything that the figures depend on; a state file of another identity is not used.
        seed: of the attacks.
    """

    model: nn.Module
    judges: tuple[nn.Module, ...]
    split: Split
    positions: tuple[int, ...]
    stages: tuple[Stage, ...]
    cumulative: bool
    batch_size: int
    identity: str
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """What came out, on the CPU.

    Attributes:
        clean: (J, N) bool, right on the clean image.
        held: (S, J, N) bool, right when clean and under the stage's candidate, or, where the stage did not attack
            the image, False.
        attacked: (S, N) bool.
        outside: (S,) how many candidates lay outside the ball or the pixel range and were projected back.
        resumed: batches taken from a state file.
    """

    clean: Tensor
    held: Tensor
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
) -> Tally:
    """Run every stage.

    Args:
        campaign: what to run.
        state: a file that is rewritten after every batch, read at the start, and removed at the end.
        ranks: the processes that share the batches.
        stop: given a stage's (J, N) `held`; True ends the campaign after it.
        progress: called with (images done over all stages, the most that there can be).

    Raises:
        InputError: no images.
    """
    total = len(campaign.split)
    if total == 0:
        raise InputError("no images to evaluate; raise --limit, or check the data set")
    ranks = ranks or Ranks()
    log = _Log(state if ranks.writes else None, campaign.identity)
    log.done = ranks.gather(log.done)[0]  # all ranks use the writer's state
    resumed = sum(len(batches) for batches in log.done.values())
    clean = torch.stack([_right(judge, campaign, campaign.split) for judge in campaign.judges])
    alive, held, attacked, outside = clean[0].clone(), [], [], []
    for number, stage in enumerate(campaign.stages):
        rows = alive.nonzero().squeeze(1) if campaign.cumulative else torch.arange(total)
        results = _run_stage(campaign, stage, rows, log, ranks, _reporter(progress, number, campaign))
        stage_held, stage_attacked = torch.zeros_like(clean), torch.zeros(total, dtype=torch.bool)
        stage_attacked[rows] = True
        if len(rows):
            right = torch.cat([_bits(batch["held"]) for batch in results], 1)
            stage_held[:, rows] = right & clean[:, rows]
        held.append(stage_held)
        attacked.append(stage_attacked)
        outside.append(sum(int(batch["outside"]) for batch in results))
        alive = alive & stage_held[0]
        if stop is not None and stop(stage_held):
            break
    if progress is not None:
        progress(_most(campaign), _most(campaign))
    log.remove()
    return Tally(clean, torch.stack(held), torch.stack(attacked), tuple(outside), resumed)


def _run_stage(
    campaign: Campaign, stage: Stage, rows: Tensor, log: _Log, ranks: Ranks, report: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Every batch's outcome, in order; a round gives each rank one batch."""
    batches = list(rows.split(campaign.batch_size)) if len(rows) else []
    done = log.done.setdefault(stage.name, {})
    missing = [number for number in range(len(batches)) if str(number) not in done]
    for first in range(0, len(missing), ranks.world):
        turn = missing[first : first + ranks.world]
        mine = turn[ranks.rank] if ranks.rank < len(turn) else None
        outcome = None if mine is None else _run_batch(campaign, stage, batches[mine])
        for number, result in zip(turn, ranks.gather(outcome), strict=False):
            done[str(number)] = result
        log.save()
        report(min(len(done) * campaign.batch_size, len(rows)))
    return [done[str(number)] for number in range(len(batches))]


def _run_batch(campaign: Campaign, stage: Stage, rows: Tensor) -> dict[str, Any]:
    images, labels = campaign.split.floats(rows), campaign.split.labels[rows]
    positions = [campaign.positions[row] for row in rows.tolist()]
    found = candidates(campaign.model, stage, images, labels, seed=campaign.seed, positions=positions)
    found, outside = confine(found, images, stage.threat)
    right = [predictions(judge, found) == labels for judge in campaign.judges]
    return {"held": ["".join("01"[bit] for bit in row.int().tolist()) for row in right], "outside": int(outside.sum())}


def candidates(
    model: nn.Module, stage: Stage, images: Tensor, labels: Tensor, *, seed: int, positions: Sequence[int]
) -> Tensor:
    """What a stage's attack makes of a batch. Args as of `Attack.perturb`.

    Raises:
        InputError: an attack of the user's failed, or returned anything but one candidate per image.
    """
    attack = stage.attack
    try:
        with torch.enable_grad():
            found = attack.perturb(model, images, labels, stage.threat, seed=seed, positions=positions)
    except Exception as cause:
        if not is_own(attack) or isinstance(cause, RobustEdgeError):
            raise
        raise InputError(f"attack {stage.name!r} failed ({type(cause).__name__}: {cause})") from cause
    if not isinstance(found, Tensor) or (found.shape, found.dtype) != (images.shape, images.dtype):
        what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"attack {stage.name!r} must return {images.dtype} {tuple(images.shape)}, it returned {what}")
    return found.detach()


def part_of(progress: Progress | None, turn: int, turns: int) -> Progress | None:
    """The progress of one campaign among several that take about as long as each other."""
    if progress is None:
        return None
    return lambda done, total: progress(turn * total + done, turns * total)


def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """(N,) classes; −1 where the logits are not numbers, so that such an image counts as wrong."""
    with torch.no_grad(), evaluation_mode(model):
        return classes_of(model(images))


def _right(judge: nn.Module, campaign: Campaign, split: Split) -> Tensor:
    parts = batches_of(len(split), campaign.batch_size)
    return torch.cat([(predictions(judge, split.floats(part)) == split.labels[part]).cpu() for part in parts])


def _bits(rows: Sequence[str]) -> Tensor:
    return torch.tensor([[bit == "1" for bit in row] for row in rows])


def _reporter(progress: Progress | None, stage: int, campaign: Campaign) -> Callable[[int], None]:
    most = _most(campaign)

    def report(done: int) -> None:
        if progress is not None:
            progress(min(stage * len(campaign.split) + done, most - 1), most)

    return report


def _most(campaign: Campaign) -> int:
    """Images over all stages, if none is ever broken."""
    return len(campaign.stages) * len(campaign.split)


class _Log:
    """The state file: which batches of which stage are done, and how they came out."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path, self._identity = path, identity
        self.done: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            found = read_json(path)
            if not isinstance(found, dict) or found.get("identity") != identity:
                raise InputError(f"{path} belongs to another evaluation; delete it to begin this one anew")
            self.done = found["stages"]

    def save(self) -> None:
        if self._path is not None:
            write_json(self._path, {"identity": self._identity, "stages": self.done})

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
