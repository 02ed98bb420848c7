"""Evaluate a run and write the result as JSON, with the hash of the evaluated checkpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from robust_edge.attacks.attack import Attack
from robust_edge.attacks.pgd import Pgd
from robust_edge.attacks.table import ATTACKS, PGD, attack_class, build_attack
from robust_edge.evaluation.accuracy import PgdResult
from robust_edge.evaluation.audit import Audit, audit_memory, audit_oblivious, audit_result, audit_steps
from robust_edge.evaluation.averaged import Averaged
from robust_edge.evaluation.campaign import Progress
from robust_edge.evaluation.combination import Combination, evaluate_average
from robust_edge.evaluation.curve import CurveResult, evaluate_curve
from robust_edge.evaluation.job import Job, Network
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.record import Evaluation, record_name, stored_evaluation
from robust_edge.evaluation.settings import EvaluationSettings
from robust_edge.evaluation.task import check_radius, prepare_task
from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge.settings.setting import setting
from robust_edge_runtimes.attacks.threat import LINF, USUAL_EPS, Threat
from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_json
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.flags import Check


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings(EvaluationSettings):
    """What to run; None stands for the default that `evaluate_run` names.

    Attributes:
        norm: `linf` or `l2`.
        eps: radius in pixel units on [0, 1].
        restarts: the attack's setting of that name.
    """

    norm: str = LINF
    eps: float | None = None
    restarts: int | None = setting(None, "random starts", range="[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        attack = self.build()
        if Threat(0.0, self.norm).norm not in attack.norms:
            suitable = ", ".join(name for name in ATTACKS if self.norm in attack_class(name).norms)
            defined = ", ".join(attack.norms)
            raise InputError(f"--attack {self.attack} is defined in {defined} only; attacks in {self.norm}: {suitable}")
        if attack.radii and self.eps is not None:
            raise InputError(
                f"--eps cannot be combined with --attack {self.attack}, which uses a fixed list of radii; leave it out"
            )

    def build(self) -> Attack:
        """The attack with its settings."""
        return build_attack(self.attack, {**self.options, "steps": self.steps, "restarts": self.restarts})


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
        InputError: settings contradict each other, or the runs cannot be averaged.
    """
    start = time.monotonic()
    job = _prepare(run, settings, out, other, ranks or Ranks())
    if note is not None:
        note(job.memory.summary())
    replaced = _replaced_record(job) if out is None else None
    if warn is not None and replaced is not None:
        warn(f"{job.out} ({replaced}) will be replaced at the end; -o FILE keeps both")
    members = () if other is None else tuple(job.audit(model) for model in job.task.models)
    audit = job.audit(job.network.model)
    results = _attack(job, members, progress)
    memory = job.memory.finished(job.task.device)
    record = Evaluation(
        run=run.name,
        attack=settings.attack,
        checkpoint_sha256=job.task.weights[0],
        dataset_fingerprint=job.task.dataset_fingerprint,
        limit=settings.limit,
        versions=versions(),
        pgd=_pgd_result(job, results.result) if other is None else None,
        curve=results.curve,
        result=results.result,
        combination=results.combination,
        audit=audit.with_checks((*results.checks, audit_memory(memory))),
        subset=job.task.subset,
        memory=memory,
        machine=machine(),
        seconds=round(time.monotonic() - start, 3),
        resumed=results.resumed,
    )
    if job.ranks.writes:
        write_json(job.out, dataclasses.asdict(record))
    return record


def _prepare(run: Run, settings: EvaluateSettings, out: Path | None, other: Run | None, ranks: Ranks) -> Job:
    attack, threat = settings.build(), _threat(run, settings)
    if other is not None and attack.radii:
        raise InputError(
            f"--with cannot be combined with --attack {settings.attack}; choose an attack with a single radius"
        )
    runs = (run,) if other is None else (run, other)
    task = prepare_task(runs, limit=settings.limit, data_dir=settings.data_dir, device=settings.device)
    model = task.models[0] if other is None else Averaged(task.models)
    target = (
        out
        or run.evaluations
        / f"{record_name(settings.attack, settings.norm, None if other is None else other.name)}.json"
    )
    if target.is_dir():
        raise InputError(f"-o {target} is a folder; name the JSON file to write")
    return Job(
        task=task,
        name=settings.attack,
        attack=attack,
        threat=threat,
        seed=settings.seed,
        network=Network(name=" + ".join(task.names), model=model),
        memory=task.plan([model], budget_mib=settings.memory_mib, most=settings.batch),
        out=target,
        ranks=ranks,
        fresh=settings.fresh,
    )


def _threat(run: Run, settings: EvaluateSettings) -> Threat:
    """The ball of the settings; its default radius is that of the run's training, or the usual one."""
    norm, usual = settings.norm, USUAL_EPS[settings.norm]
    default = (run.config.attack.eps or usual) if norm == LINF else usual
    threat = Threat(default if settings.eps is None else settings.eps, norm)
    check_radius(threat)
    return threat


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
    new_eps = None if job.attack.radii else job.threat.eps
    if (eps, images) == (new_eps, len(job.task.split)):
        return None
    radius = "" if eps is None else f"eps {eps:.4g}, "
    return f"{radius}{images if images is not None else record.limit or 'all'} images"


def _attack(job: Job, members: tuple[Audit, ...], progress: Progress | None) -> _Results:
    if job.attack.radii:
        return _curve(job, job.attack, progress)
    if members:
        pair, resumed = evaluate_average(job, members, progress)
        checks = (*audit_result(pair.adaptive, job.attack), audit_oblivious(pair.adaptive, pair.oblivious))
        return _Results(result=pair.adaptive, combination=pair, checks=checks, resumed=resumed)
    result, resumed = job.run(job.attack, job.network, job.network, progress)
    return _Results(result=result, checks=audit_result(result, job.attack), resumed=resumed)


def _curve(job: Job, attack: Attack, progress: Progress | None) -> _Results:
    identity = job.identity(attack.radii)
    result = evaluate_curve(
        job.network.model,
        job.task.split,
        job.task.classes,
        attack=attack,
        seed=job.seed,
        positions=job.task.positions,
        batch_size=job.memory.batch_size,
        state=job.state(identity),
        identity=identity,
        ranks=job.ranks,
        progress=progress,
    )
    return _Results(curve=result, checks=audit_steps(attack), resumed=result.resumed)


def _pgd_result(job: Job, result: AttackResult | None) -> PgdResult | None:
    """The accuracies of attack `pgd` in ℓ∞; None for any other attack."""
    if result is None or job.name != PGD or job.threat.norm != LINF:
        return None
    attack = job.attack
    assert isinstance(attack, Pgd)
    spec = AttackSpec(PGD, job.threat.eps, attack.steps, attack.alpha(job.threat), job.seed)
    return PgdResult(spec, result.clean, result.robust)
