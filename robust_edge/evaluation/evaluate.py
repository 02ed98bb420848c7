"""Evaluate a run and write the result as JSON, with the hash of the evaluated checkpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from robust_edge.evaluation.audit import Audit, audit_memory, audit_oblivious, audit_result, audit_steps
from robust_edge.evaluation.campaign import Progress
from robust_edge.evaluation.combination import Combination, evaluate_average
from robust_edge.evaluation.curve import CurveResult, curve_stages, evaluate_curve
from robust_edge.evaluation.job import Job, prepare_job
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.record import Evaluation, record_name, stored_evaluation
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge_runtimes.attacks.threat import LINF, USUAL_EPS, Threat
from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.flags import Check


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Results:
    """The results of an attack, for the record."""

    checks: tuple[Check, ...]
    resumed: int
    curve: CurveResult | None = None
    result: AttackResult | None = None
    combination: Combination | None = None


def evaluate_run(
    run: Run,
    settings: EvaluateSettings,
    out: Path | None = None,
    *,
    other: Run | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Evaluation:
    """Attack a finished run's test images and write the record.

    Args:
        run: the run to evaluate.
        settings: eps defaults to the run's own (8/255 for a benign run, 0.5 in ℓ2), steps and restarts to the attack's.
        out: defaults to `evaluations/ATTACK.json` in the run. A state file in the same folder holds the finished
            batches until the record is written.
        other: a second run; if given, the average of both networks' probabilities is attacked.
        ranks: the processes that share the work; only rank 0 writes.
        progress: called with (done, total).
        note: called with a message for the user.
        warn: called with a warning if an existing record will be replaced.

    Raises:
        InputError: settings contradict each other, the runs cannot be averaged, or another process writes the record.
    """
    start = time.monotonic()
    ranks, path = ranks or Ranks(), out or _default_out(run, settings, other)
    with ranks.locked(path):
        job = _prepare(run, settings, path, other, ranks)
        if note is not None:
            note(job.memory.summary())
        replaced = _replaced_record(job) if out is None else None
        if warn is not None and replaced is not None:
            warn(f"{job.out} ({replaced}) will be replaced at the end; another output file keeps both")
        members = () if other is None else tuple(job.audit(model) for model in job.task.models)
        audit = job.audit(job.networks[0].model)
        results = _attack(job, members, progress)
        record = _record(job, audit, results, time.monotonic() - start)
        job.write(record)
        return record


def _prepare(run: Run, settings: EvaluateSettings, out: Path, other: Run | None, ranks: Ranks) -> Job:
    attack, runs = settings.build(), (run,) if other is None else (run, other)
    if other is not None and attack.radii:
        raise InputError(f"attack {settings.attack} cannot attack an average; choose one with a single radius")
    return prepare_job(
        runs,
        settings,
        attack,
        [_threat(run, settings)],
        out,
        ranks,
        average=other is not None,
    )


def _default_out(run: Run, settings: EvaluateSettings, other: Run | None) -> Path:
    name = record_name(settings.attack, settings.norm, None if other is None else other.name)
    return run.path / "evaluations" / f"{name}.json"


def _threat(run: Run, settings: EvaluateSettings) -> Threat:
    """The ball of the settings; its default radius is that of the run's training, or the usual one."""
    norm, usual = settings.norm, USUAL_EPS[settings.norm]
    default = (run.config.attack.eps or usual) if norm == LINF else usual
    return Threat(default if settings.eps is None else settings.eps, norm)


def _replaced_record(job: Job) -> str | None:
    """Radius and number of images of the record to be replaced; None if there is none, or if they are the same."""
    try:
        record = stored_evaluation(job.task.runs[0], job.out.stem)
    except InputError:  # a damaged record need not be kept
        return None
    if record is None:
        return None
    eps = None if record.result is None else record.result.threat.eps
    images = None if record.subset is None else record.subset.images
    new_eps = None if job.attack.radii else job.audited.eps
    if (eps, images) == (new_eps, len(job.task.split)):
        return None
    radius = "" if eps is None else f"eps {eps:.4g}, "
    return f"{radius}{images if images is not None else record.limit or 'all'} images"


def _attack(job: Job, members: tuple[Audit, ...], progress: Progress | None) -> _Results:
    if job.attack.radii:
        return _curve(job, progress)
    if members:
        pair, resumed = evaluate_average(job, members, progress)
        checks = (*audit_result(pair.adaptive, job.attack), audit_oblivious(pair.adaptive, pair.oblivious))
        return _Results(result=pair.adaptive, combination=pair, checks=checks, resumed=resumed)
    (network,) = job.networks
    result, resumed = job.run(job.attack, network, network, progress)
    return _Results(result=result, checks=audit_result(result, job.attack), resumed=resumed)


def _curve(job: Job, progress: Progress | None) -> _Results:
    identity = job.identity(job.attack.radii)
    network = job.networks[0]
    campaign = job.campaign(curve_stages(job.attack), network, [network], cumulative=False, identity=identity)
    result = evaluate_curve(campaign, job.task.classes, state=job.state(identity), ranks=job.ranks, progress=progress)
    return _Results(curve=result, checks=audit_steps(job.attack), resumed=result.resumed)


def _record(job: Job, audit: Audit, results: _Results, seconds: float) -> Evaluation:
    memory = job.memory.finished(job.task.device)
    return Evaluation(
        run=job.task.runs[0].name,
        attack=job.settings.attack,
        checkpoint_sha256=job.task.weights[0],
        dataset_fingerprint=job.task.dataset_fingerprint,
        limit=job.settings.limit,
        versions=versions(),
        curve=results.curve,
        result=results.result,
        combination=results.combination,
        audit=audit.with_checks((*results.checks, audit_memory(memory))),
        subset=job.task.subset,
        memory=memory,
        machine=machine(),
        seconds=round(seconds, 3),
        resumed=results.resumed,
    )
