"""Evaluate a run and keep the result as JSON, bound to the checkpoint it is true of."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from robust_edge.attacks.ball import LINF, check_norm
from robust_edge.deployment import BENIGN_EPS
from robust_edge.evaluation import memory as memories
from robust_edge.evaluation.accuracy import PgdResult, accuracy
from robust_edge.evaluation.adversaries import (
    ATTACKS,
    CURVE,
    DEFAULT_RESTARTS,
    DEFAULT_STEPS,
    FGSM,
    PGD,
    VERSIONS,
    Adversary,
    stages_of,
)
from robust_edge.evaluation.audit import (
    Audit,
    audit_memory,
    audit_model,
    audit_oblivious,
    audit_result,
    audit_steps,
)
from robust_edge.evaluation.averaged import Averaged
from robust_edge.evaluation.campaign import Campaign, Progress, part_of, run_campaign
from robust_edge.evaluation.combination import Combination
from robust_edge.evaluation.curve import EPSILONS, CurveResult, evaluate_curve
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.outcome import HELD, AttackResult, attack_result
from robust_edge.evaluation.record import Evaluation, stored_evaluation
from robust_edge.evaluation.task import Task, prepare_task, state_file
from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.errors import InputError, unknown_name
from robust_edge_runtimes.core.files import write_json
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.flags import Check

L2_EPS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What to run; None stands for the default that `evaluate_run` names.

    Attributes:
        attack: of ATTACKS.
        norm: `linf` or `l2`.
        eps: radius in pixel units on [0, 1].
        steps: gradient steps of `pgd`, `cw` and `curve`; the other attacks fix their own.
        restarts: random starts of `pgd` and `cw`.
        limit: use a fixed random subset of so many test images.
        seed: of the attacks.
        batch: most images at a time.
        memory_mib: what batches may use beyond what is in use at the start.
        fresh: throw away what a killed evaluation left, instead of going on with it.
    """

    attack: str = PGD
    norm: str = LINF
    eps: float | None = None
    steps: int | None = None
    restarts: int | None = None
    limit: int | None = None
    seed: int = 0
    data_dir: str | None = None
    device: str = "auto"
    batch: int = memories.MOST_IMAGES
    memory_mib: int = memories.DEFAULT_BUDGET_MIB
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.attack not in ATTACKS:
            raise unknown_name("attack", self.attack, ATTACKS)
        check_norm(self.norm)
        for name in ("limit", "batch", "memory_mib", "steps", "restarts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.partition('_')[0]} must be at least 1, it is {value}")
        for name in ("steps", "restarts"):
            if getattr(self, name) is not None and self.attack in (*VERSIONS, FGSM):
                raise InputError(f"--{name} belongs to pgd, cw and curve; {self.attack} fixes its own")
        if self.attack == CURVE:
            for name in ("eps", "restarts"):
                if getattr(self, name) is not None:
                    raise InputError(
                        f"--{name} has no meaning for curve, which runs through rising radii; leave it out"
                    )
            if self.norm != LINF:
                raise InputError("--attack curve is defined in linf only; take --attack pgd --norm l2 with a radius")


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
        run: what to attack.
        settings: eps defaults to the run's own (8/255 for a benign run, 0.5 in ℓ2), steps to 50 (curve: 100),
            restarts to 3.
        out: defaults to `evaluations/ATTACK.json` in the run. What has been done so far stands beside it in a state
            file until the end.
        other: average the probabilities of both runs, and attack the average.
        ranks: the processes that share the work; only the first writes.
        progress: called with (done, total).
        note: called with a line for a person.
        warn: the same, with what is about to be lost.

    Raises:
        InputError: settings that contradict each other, or runs that do not fit together.
    """
    if other is not None and settings.attack == CURVE:
        raise InputError("--with takes one radius: pgd, cw, fgsm, autoattack or thesis-autoattack, not curve")
    start = time.monotonic()
    job = _prepare(run, settings, out, other, ranks or Ranks())
    if note is not None:
        note(job.memory.line())
    replaced = _replaced(job) if out is None else None
    if warn is not None and replaced is not None:
        warn(f"{job.out} ({replaced}) will be replaced at the end; -o FILE keeps both")
    members = () if other is None else tuple(_audit(job, member) for member in job.task.models)
    audit = _audit(job, job.model)
    parts = _attack(job, members, progress)
    memory = job.memory.finished(job.task.device)
    record = Evaluation(
        run=run.name,
        attack=settings.attack,
        checkpoint_sha256=job.task.weights[0],
        dataset_fingerprint=job.task.dataset_fingerprint,
        limit=settings.limit,
        versions=versions(),
        pgd=_short(parts.result) if other is None else None,
        curve=parts.curve,
        result=parts.result,
        combination=parts.combination,
        audit=audit.with_checks((*parts.checks, audit_memory(memory))),
        subset=job.task.subset,
        memory=memory,
        machine=machine(),
        seconds=round(time.monotonic() - start, 3),
        resumed=parts.resumed,
    )
    if job.ranks.writes:
        write_json(job.out, dataclasses.asdict(record))
    return record


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Job:
    """A task and what is to be done.

    Attributes:
        adversary: None for the curve, whose radius rises.
        model: what is judged, the run's network or the average.
    """

    task: Task
    settings: EvaluateSettings
    adversary: Adversary | None
    model: nn.Module
    memory: Memory
    out: Path
    ranks: Ranks

    def identity(self, *what: object) -> str:
        return self.task.identity(*what, self.memory.batch_size)

    def state(self, identity: str) -> Path:
        return state_file(self.out, identity, self.ranks, fresh=self.settings.fresh)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Parts:
    """What an attack adds to the record."""

    curve: CurveResult | None = None
    result: AttackResult | None = None
    combination: Combination | None = None
    checks: tuple[Check, ...] = ()
    resumed: int = 0


def _prepare(run: Run, settings: EvaluateSettings, out: Path | None, other: Run | None, ranks: Ranks) -> _Job:
    adversary = _adversary(run, settings)
    runs = (run,) if other is None else (run, other)
    task = prepare_task(runs, limit=settings.limit, data_dir=settings.data_dir, device=settings.device)
    model = task.models[0] if other is None else Averaged(task.models)
    target = out or record_path(run, settings, other)
    if target.is_dir():
        raise InputError(f"-o {target} is a folder; name the JSON file to write")
    return _Job(
        task=task,
        settings=settings,
        adversary=adversary,
        model=model,
        memory=task.plan([model], budget_mib=settings.memory_mib, most=settings.batch),
        out=target,
        ranks=ranks,
    )


def record_path(run: Run, settings: EvaluateSettings, other: Run | None = None) -> Path:
    """Where a record goes that nobody named: one for each attack, norm and partner, which `report` shows."""
    suffix = ("" if settings.norm == LINF else f"-{settings.norm}") + ("" if other is None else f"-with-{other.name}")
    return run.evaluations / f"{settings.attack}{suffix}.json"


def _replaced(job: _Job) -> str | None:
    """What the record says that stands in the way; None if there is none, or one of the same radius and images."""
    try:
        record = stored_evaluation(job.task.runs[0], job.out.stem)
    except InputError:  # damaged, so nothing is lost
        return None
    if record is None:
        return None
    eps = None if record.result is None else record.result.spec.eps
    images = None if record.subset is None else record.subset.images
    if (eps, images) == (job.adversary and job.adversary.eps, len(job.task.split)):
        return None
    radius = "" if eps is None else f"eps {eps:.4g}, "
    return f"{radius}{images if images is not None else record.limit or 'all'} images"


def _adversary(run: Run, settings: EvaluateSettings) -> Adversary | None:
    """The attack with its defaults."""
    attack = settings.attack
    if attack == CURVE:
        return None
    return Adversary(
        attack=attack,
        eps=_usual_radius(run, settings.norm) if settings.eps is None else settings.eps,
        norm=settings.norm,
        steps=settings.steps or DEFAULT_STEPS.get(attack, 1),
        restarts=settings.restarts or DEFAULT_RESTARTS.get(attack, 1),
        seed=settings.seed,
    )


def _usual_radius(run: Run, norm: str) -> float:
    return run.config.attack.eps or BENIGN_EPS if norm == LINF else L2_EPS


def _audit(job: _Job, model: nn.Module) -> Audit:
    norm = job.settings.norm
    eps = _usual_radius(job.task.runs[0], norm) if job.adversary is None else job.adversary.eps
    batch = job.memory.batch_size
    return audit_model(model, job.task.split, eps=eps, norm=norm, seed=job.settings.seed, batch_size=batch)


def _attack(job: _Job, members: tuple[Audit, ...], progress: Progress | None) -> _Parts:
    if job.adversary is None:
        return _curve(job, progress)
    if members:
        return _average(job, job.adversary, members, progress)
    name = job.task.runs[0].name
    result, resumed = _one_attack(job, job.adversary, (job.model, job.model), (name, name), progress)
    return _Parts(result=result, checks=audit_result(result), resumed=resumed)


def _curve(job: _Job, progress: Progress | None) -> _Parts:
    settings = job.settings
    steps = settings.steps or DEFAULT_STEPS[CURVE]
    identity = job.identity(CURVE, steps, EPSILONS, settings.seed)
    result = evaluate_curve(
        job.model,
        job.task.split,
        job.task.classes,
        steps=steps,
        seed=settings.seed,
        positions=job.task.positions,
        batch_size=job.memory.batch_size,
        state=job.state(identity),
        identity=identity,
        ranks=job.ranks,
        progress=progress,
    )
    return _Parts(curve=result, checks=(audit_steps(steps),), resumed=result.resumed)


def _average(job: _Job, adversary: Adversary, members: tuple[Audit, ...], progress: Progress | None) -> _Parts:
    """Every row of Table C.1: five campaigns, one after another."""
    run, other = job.task.runs
    names = (run.name, other.name if other.name != run.name else str(other.path))
    average, turns = " + ".join(names), 2 * len(names) + 1
    alone, oblivious, resumed = [], [], 0
    shown = dataclasses.replace(adversary, last=True)
    for turn, (name, member) in enumerate(zip(names, job.task.models, strict=True)):
        part = part_of(progress, 2 * turn, turns)
        own, more = _one_attack(job, adversary, (member, member), (name, name), part)
        part = part_of(progress, 2 * turn + 1, turns)
        blind, again = _one_attack(job, shown, (member, job.model), (name, average), part)
        alone.append(own)
        oblivious.append(blind)
        resumed += more + again
    part = part_of(progress, turns - 1, turns)
    adaptive, more = _one_attack(job, adversary, (job.model, job.model), (average, average), part)
    fates = zip(adaptive.fates, *(item.fates for item in oblivious), strict=True)
    combination = Combination(
        other=names[1],
        other_sha256=job.task.weights[1],
        other_path=os.path.relpath(other.path.resolve(), run.path.resolve()),
        members=tuple(alone),
        oblivious=tuple(oblivious),
        adaptive=adaptive,
        every=accuracy(sum(all(fate == HELD for fate in row) for row in fates), len(job.task.split)),
        audits=tuple(audit.with_checks(audit_result(own)) for audit, own in zip(members, alone, strict=True)),
    )
    checks = (*audit_result(adaptive), audit_oblivious(adaptive, oblivious))
    return _Parts(result=adaptive, combination=combination, checks=checks, resumed=resumed + more)


def _one_attack(
    job: _Job,
    adversary: Adversary,
    networks: tuple[nn.Module, nn.Module],
    names: tuple[str, str],
    progress: Progress | None,
) -> tuple[AttackResult, int]:
    """The outcome, and how many batches a killed process had done; `networks` are the attacked and the judged one."""
    task, batch = job.task, job.memory.batch_size
    attacked, judged = networks
    spec, stages = stages_of(attacked, adversary, classes=task.classes, batch_size=batch, device=task.device)
    identity = job.identity(dataclasses.asdict(spec), adversary.last, names)
    campaign = Campaign(
        judges=(judged,),
        split=task.split,
        positions=task.positions,
        stages=stages,
        cumulative=True,
        batch_size=batch,
        identity=identity,
    )
    tally = run_campaign(campaign, state=job.state(identity), ranks=job.ranks, progress=progress)
    result = attack_result(
        spec, tally.clean[0], tally.held[:, 0], tally.outside, task.positions, attacked=names[0], judged=names[1]
    )
    return result, tally.resumed


def _short(result: AttackResult | None) -> PgdResult | None:
    if result is None or result.spec.attack != PGD or result.spec.norm != LINF:
        return None
    (stage,) = result.spec.stages
    assert stage.step_size is not None
    spec = AttackSpec(PGD, result.spec.eps, stage.iterations, stage.step_size, result.spec.seed)
    return PgdResult(spec, result.clean, result.robust)
