"""Transfer attacks: networks evaluated on attack images that were made on other networks.

Source: Marshall 2020, Algorithm 3, at increasing ε (figures 4.6 and C.2). The images of a source are computed once and
classified by every target. Deviation: an image counts as right only if it is right when clean, too, as in all other
evaluations.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robust_edge.attacks.table import PGD
from robust_edge.evaluation.accuracy import Accuracy, accuracy_of
from robust_edge.evaluation.audit import Audit, audit_memory, audit_steps, audit_transfer
from robust_edge.evaluation.campaign import Progress, Stage, digits, part_of
from robust_edge.evaluation.job import Job, prepare_job
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.settings import TransferSettings
from robust_edge.evaluation.subset import Subset
from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.flags import Check


@dataclasses.dataclass(frozen=True)
class TransferPoint:
    """Accuracy of one target at one ε; `held` has a digit per image, 1 if it is right when clean and under attack."""

    eps: float
    accuracy: Accuracy
    held: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferCurve:
    """The accuracies of one target on the attack images of one source; white-box if both are the same run."""

    source: str
    target: str
    clean: Accuracy
    points: tuple[TransferPoint, ...]


@dataclasses.dataclass(frozen=True)
class AuditedNetwork:
    """The record of a source or target, with its validity checks."""

    name: str
    arch: str
    checkpoint_sha256: str
    audit: Audit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """The accuracies of all targets on the attack images of all sources.

    Attributes:
        steps: gradient steps at every ε; None if the attack has no such setting.
        positions: indices of the images in the test split.
        curves: for each source, the source itself and then the other targets.
        attack: name of the attack, as given to `--attack`.
        title: the attack's name in a table or text; empty in older records.
        settings: its settings, without those that are None; empty in older records.
    """

    dataset_fingerprint: str
    steps: int | None
    seed: int
    positions: tuple[int, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    networks: tuple[AuditedNetwork, ...]
    curves: tuple[TransferCurve, ...]
    subset: Subset
    memory: Memory
    versions: dict[str, str]
    machine: Machine
    seconds: float
    norm: str = LINF
    attack: str = PGD
    title: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


def run_transfer(
    sources: Sequence[Run],
    targets: Sequence[Run],
    settings: TransferSettings,
    out: Path,
    *,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Transfer:
    """Run Algorithm 3 for every source and write the results.

    Args:
        sources: the runs on whose networks the images are computed.
        targets: the runs whose networks classify the images.
        settings: the attack, radii and images.
        out: the JSON file to write; state files are kept in the same folder until then.
        ranks: the processes that share the work; only rank 0 writes.
        progress: called with (done, total).
        note: called with a message for the user.

    Raises:
        InputError: there is no source or no target, two runs have the same name, the runs differ in classes, image
            shape or test images, or another process writes `out`.
    """
    start = time.monotonic()
    if not sources or not targets:
        raise InputError("transfer needs at least one source and one target")
    ranks = ranks or Ranks()
    with ranks.locked(out):
        runs, threats = _runs_by_name([*sources, *targets]), [Threat(eps) for eps in settings.epsilons]
        job = prepare_job([*runs.values()], settings, settings.build(), threats, out, ranks)
        if note is not None:
            note(job.memory.summary())
        audits = [job.audit(network.model) for network in job.networks]
        source_names, target_names = (tuple(dict.fromkeys(run.name for run in group)) for group in (sources, targets))
        curves: list[TransferCurve] = []
        for turn, source in enumerate(source_names):
            evaluated = [source, *(name for name in target_names if name != source)]
            curves += _evaluate_source(job, evaluated, part_of(progress, turn, len(source_names)))
        result = _record(job, source_names, target_names, audits, curves, start)
        job.write(result)
        return result


def _record(
    job: Job,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    audits: Sequence[Audit],
    curves: Sequence[TransferCurve],
    start: float,
) -> Transfer:
    memory = job.memory.finished(job.task.device)
    return Transfer(
        dataset_fingerprint=job.task.dataset_fingerprint,
        steps=getattr(job.attack, "steps", None),
        seed=job.settings.seed,
        positions=job.task.positions,
        sources=sources,
        targets=targets,
        networks=_audited_networks(job, audits, curves, memory),
        curves=tuple(curves),
        subset=job.task.subset,
        memory=memory,
        versions=versions(),
        machine=machine(),
        seconds=round(time.monotonic() - start, 3),
        attack=job.settings.attack,
        title=job.attack.title,
        settings=job.attack.settings(),
    )


def _audited_networks(
    job: Job, audits: Sequence[Audit], curves: Sequence[TransferCurve], memory: Memory
) -> tuple[AuditedNetwork, ...]:
    """All networks with the audits before the attack and the checks after it."""
    common = (*audit_steps(job.attack), audit_memory(memory))
    found = []
    for network, checkpoint, audit in zip(job.networks, job.task.checkpoints, audits, strict=True):
        complete = audit.with_checks((*_transfer_check(network.name, curves), *common))
        found.append(AuditedNetwork(network.name, checkpoint.model.arch, checkpoint.weights_sha256, complete))
    return tuple(found)


def _transfer_check(name: str, curves: Sequence[TransferCurve]) -> list[Check]:
    """Check that images of other networks are not stronger than the network's own, if both were evaluated."""
    own = next((curve for curve in curves if curve.source == curve.target == name), None)
    others = [curve for curve in curves if curve.target == name != curve.source]
    if own is None or not others:
        return []
    gained = max(
        white_box.accuracy.correct - transferred.accuracy.correct
        for other in others
        for white_box, transferred in zip(own.points, other.points, strict=True)
    )
    detail = f"images made on another network break at most {max(gained, 0)} image(s) more than its own at any ε"
    return [audit_transfer(gained, own.clean.images, detail)]


def _evaluate_source(job: Job, names: Sequence[str], progress: Progress | None) -> list[TransferCurve]:
    """Compute the images of the first network, and evaluate all named networks on them."""
    by_name = {network.name: network for network in job.networks}
    evaluated = [by_name[name] for name in names]
    stages = tuple(Stage(f"eps={threat.eps:g}", job.attack, threat) for threat in job.threats)
    result = job.run_stages(stages, evaluated[0], evaluated, cumulative=False, progress=progress)
    return [
        TransferCurve(
            source=names[0],
            target=name,
            clean=accuracy_of(result.clean[index]),
            points=tuple(
                TransferPoint(threat.eps, accuracy_of(right), digits(right))
                for threat, right in zip(job.threats, result.robust[:, index], strict=True)
            ),
        )
        for index, name in enumerate(names)
    ]


def _runs_by_name(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by name; a run that is both source and target appears once."""
    by_name: dict[str, Run] = {}
    for run in runs:
        known = by_name.setdefault(run.name, run)
        if known.path.resolve() != run.path.resolve():
            raise InputError(f"{known.path} and {run.path} have the same name; rename one of them")
    return by_name
