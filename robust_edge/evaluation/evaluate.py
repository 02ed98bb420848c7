"""Evaluate a run and keep the result as JSON, bound to the checkpoint it is true of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from robust_edge.attacks.ball import LINF, check_norm
from robust_edge.data import Split
from robust_edge.deployment import BENIGN_EPS, evaluation_images
from robust_edge.environment import versions
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
from robust_edge.evaluation.audit import Audit, audit_model, audit_result, audit_steps
from robust_edge.evaluation.averaged import Averaged
from robust_edge.evaluation.campaign import Campaign, run_campaign
from robust_edge.evaluation.combination import Combination
from robust_edge.evaluation.curve import EPSILONS, CurveResult, evaluate_curve
from robust_edge.evaluation.memory import Memory, plan_memory
from robust_edge.evaluation.outcome import HELD, AttackResult, attack_result
from robust_edge.evaluation.ranks import Ranks, device_of_rank
from robust_edge.evaluation.subset import SUBSET_SEED, choose
from robust_edge.run import Checkpoint, Run
from robust_edge.training.device import pick_device
from robust_edge_runtimes.decode import decode, read_json
from robust_edge_runtimes.environment import Machine, machine
from robust_edge_runtimes.errors import InputError, unknown_name
from robust_edge_runtimes.files import write_json
from robust_edge_runtimes.manifest import AttackSpec

Progress = Callable[[int, int], None]
OWN_NAME = re.compile(f"({'|'.join(ATTACKS)})(-l2)?(-with-.+)?")


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


@dataclasses.dataclass(frozen=True)
class Subset:
    """Which images: all of the test split, or a fixed random part.

    Attributes:
        seed: of the choice; None where all were taken.
    """

    images: int
    of: int
    seed: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One attack on one checkpoint.

    Attributes:
        limit: how many test images were asked for; None is all.
        pgd: the result of attack `pgd` in ℓ∞, in short.
        curve: the result of attack `curve`.
        result: every other attack, image by image; of a combination, the average under the adaptive attack.
        combination: of an average of two networks.
        audit: None in records from before there was one.
        resumed: batches that an earlier, killed process had done.
    """

    run: str
    attack: str
    checkpoint_sha256: str
    dataset_fingerprint: str
    limit: int | None
    versions: dict[str, str]
    pgd: PgdResult | None = None
    curve: CurveResult | None = None
    result: AttackResult | None = None
    combination: Combination | None = None
    audit: Audit | None = None
    subset: Subset | None = None
    memory: Memory | None = None
    machine: Machine | None = None
    seconds: float = 0.0
    resumed: int = 0


def evaluate_run(
    run: Run,
    settings: EvaluateSettings,
    out: Path | None = None,
    *,
    other: Run | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
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

    Raises:
        InputError: settings that contradict each other, or runs that do not fit together.
    """
    if other is not None and settings.attack == CURVE:
        raise InputError("--with takes one radius: pgd, cw, fgsm, autoattack or thesis-autoattack, not curve")
    start = time.monotonic()
    task = _prepare(run, settings, out, other, ranks or Ranks())
    if note is not None:
        note(task.memory.line())
    audit = audit_model(task.model, task.split, eps=task.eps, norm=settings.norm, seed=settings.seed)
    parts = _curve(task, progress) if settings.attack == CURVE else _attack(task, other, progress)
    results = [item for item in (parts.result, *_results_of(parts.combination)) if item is not None]
    for result in results[:1]:
        steps = audit_steps(result)
        audit = audit.with_checks(audit_result(result) + ((steps,) if steps else ()))
    record = Evaluation(
        run=run.name,
        attack=settings.attack,
        checkpoint_sha256=task.checkpoint.weights_sha256,
        dataset_fingerprint=task.checkpoint.dataset_fingerprint,
        limit=settings.limit,
        versions=versions(),
        pgd=_short(parts.result) if other is None else None,
        curve=parts.curve,
        result=parts.result,
        combination=parts.combination,
        audit=audit,
        subset=task.subset,
        memory=task.memory.finished(task.device),
        machine=machine(),
        seconds=round(time.monotonic() - start, 3),
        resumed=parts.resumed,
    )
    if task.ranks.writes:
        write_json(task.out, dataclasses.asdict(record))
    return record


def stored_evaluation(run: Run, attack: str) -> Evaluation | None:
    """The record that `evaluate` left in the run, unless it belongs to an older checkpoint."""
    path = run.path / "evaluations" / f"{attack}.json"
    if not path.is_file():
        return None
    record = decode(Evaluation, read_json(path), where=str(path))
    return record if record.checkpoint_sha256 == run.checkpoint().weights_sha256 else None


def stored_evaluations(run: Run) -> list[Evaluation]:
    """Every record in the run that belongs to its checkpoint, in order of file name."""
    folder = run.path / "evaluations"
    paths = folder.glob("*.json") if folder.is_dir() else ()
    names = sorted(path.stem for path in paths if OWN_NAME.fullmatch(path.stem))
    found = [stored_evaluation(run, name) for name in names]
    return [record for record in found if record is not None]


def same_task(runs: Iterable[Run]) -> None:
    """Raise InputError unless all runs are of the same classes, image shape and images."""
    first: tuple[Run, Checkpoint] | None = None
    for run in runs:
        checkpoint = run.checkpoint()
        if first is None:
            first = run, checkpoint
            continue
        for what, mine, theirs in (
            ("classes", checkpoint.model.classes, first[1].model.classes),
            ("image shape", checkpoint.model.shape, first[1].model.shape),
            ("test images", checkpoint.dataset_fingerprint[:12], first[1].dataset_fingerprint[:12]),
        ):
            if mine != theirs:
                raise InputError(
                    f"{run.path} and {first[0].path} differ in their {what} ({_short_text(mine)}, "
                    f"{_short_text(theirs)}), so one's attack images say nothing of the other"
                )


def model_identity(*values: object) -> str:
    """A short hash of everything that figures depend on."""
    return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Task:
    """Everything that an attack needs."""

    run: Run
    settings: EvaluateSettings
    checkpoint: Checkpoint
    device: torch.device
    members: tuple[nn.Module, ...]
    weights: tuple[str, ...]
    model: nn.Module
    split: Split
    positions: tuple[int, ...]
    subset: Subset
    eps: float
    memory: Memory
    out: Path
    ranks: Ranks

    @property
    def classes(self) -> int:
        return len(self.checkpoint.model.classes)

    def identity(self, what: object) -> str:
        software = {name: version for name, version in versions().items() if name in ("robust-edge", "torch")}
        batch = self.memory.batch_size
        return model_identity(what, self.weights, self.checkpoint.dataset_fingerprint, self.positions, batch, software)

    def state(self, name: str) -> Path:
        path = self.out.with_name(f".{self.out.stem}.{name}.state")
        if self.settings.fresh and self.ranks.writes:
            path.unlink(missing_ok=True)
        return path


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    curve: CurveResult | None = None
    result: AttackResult | None = None
    combination: Combination | None = None
    resumed: int = 0


def _prepare(run: Run, settings: EvaluateSettings, out: Path | None, other: Run | None, ranks: Ranks) -> _Task:
    checkpoint, device = run.checkpoint(), device_of_rank(pick_device(settings.device))
    runs = (run,) if other is None else (run, other)
    same_task(runs)
    eps = _radius(run, settings)
    members = tuple(item.load_model().to(device) for item in runs)
    model = members[0] if other is None else Averaged(members).eval()
    whole = evaluation_images(run, data_dir=settings.data_dir)
    split, positions = choose(whole.to(device), settings.limit)
    subset = Subset(len(split), len(whole), SUBSET_SEED if len(split) < len(whole) else None)
    classes = len(checkpoint.model.classes)
    plan = plan_memory(model, split.floats(slice(0, 1)), classes, budget_mib=settings.memory_mib, most=settings.batch)
    suffix = ("" if settings.norm == LINF else f"-{settings.norm}") + ("" if other is None else f"-with-{other.name}")
    target = out or run.evaluations / f"{settings.attack}{suffix}.json"
    if target.is_dir():
        raise InputError(f"-o {target} is a folder; name the JSON file to write")
    return _Task(
        run=run,
        settings=settings,
        checkpoint=checkpoint,
        device=device,
        members=members,
        weights=tuple(item.checkpoint().weights_sha256 for item in runs),
        model=model,
        split=split,
        positions=positions,
        subset=subset,
        eps=eps,
        memory=plan,
        out=target,
        ranks=ranks,
    )


def _radius(run: Run, settings: EvaluateSettings) -> float:
    if settings.eps is not None:
        return Adversary(attack=settings.attack, eps=settings.eps, norm=settings.norm).eps
    return 0.5 if settings.norm != LINF else run.config.attack.eps or BENIGN_EPS


def _attack(task: _Task, other: Run | None, progress: Progress | None) -> _Parts:
    if other is None:
        result, resumed = _one_attack(task, task.model, task.model, (task.run.name, task.run.name), progress)
        return _Parts(result=result, resumed=resumed)
    names = (task.run.name, other.name if other.name != task.run.name else str(other.path))
    average, resumed = " + ".join(names), 0
    members, oblivious = [], []
    turns = 2 * len(names) + 1
    for turn, (name, member) in enumerate(zip(names, task.members, strict=True)):
        alone, more = _one_attack(task, member, member, (name, name), _part(progress, 2 * turn, turns))
        shown, again = _one_attack(task, member, task.model, (name, average), _part(progress, 2 * turn + 1, turns))
        members.append(alone)
        oblivious.append(shown)
        resumed += more + again
    adaptive, more = _one_attack(task, task.model, task.model, (average, average), _part(progress, turns - 1, turns))
    fates = zip(adaptive.fates, *(item.fates for item in oblivious), strict=True)
    right = sum(all(fate == HELD for fate in row) for row in fates)
    combination = Combination(
        other=names[1],
        other_sha256=other.checkpoint().weights_sha256,
        members=tuple(members),
        oblivious=tuple(oblivious),
        adaptive=adaptive,
        every=accuracy(right, len(task.split)),
    )
    return _Parts(result=adaptive, combination=combination, resumed=resumed + more)


def _one_attack(
    task: _Task, attacked: nn.Module, judged: nn.Module, names: tuple[str, str], progress: Progress | None
) -> tuple[AttackResult, int]:
    settings = task.settings
    adversary = Adversary(
        attack=settings.attack,
        eps=task.eps,
        norm=settings.norm,
        steps=settings.steps or DEFAULT_STEPS.get(settings.attack, 1),
        restarts=settings.restarts or DEFAULT_RESTARTS.get(settings.attack, 1),
        seed=settings.seed,
        last=attacked is not judged,
    )
    batch = task.memory.batch_size
    spec, stages = stages_of(attacked, adversary, classes=task.classes, batch_size=batch, device=task.device)
    identity = task.identity((dataclasses.asdict(spec), adversary.last, names))
    campaign = Campaign(
        judges=(judged,),
        split=task.split,
        positions=task.positions,
        stages=stages,
        cumulative=True,
        batch_size=batch,
        identity=identity,
    )
    tally = run_campaign(campaign, state=task.state(identity), ranks=task.ranks, progress=progress)
    result = attack_result(
        spec, tally.clean[0], tally.held[:, 0], tally.outside, task.positions, attacked=names[0], judged=names[1]
    )
    return result, tally.resumed


def _curve(task: _Task, progress: Progress | None) -> _Parts:
    settings = task.settings
    steps = settings.steps or DEFAULT_STEPS[CURVE]
    identity = task.identity((CURVE, steps, EPSILONS, settings.seed))
    result = evaluate_curve(
        task.model,
        task.split,
        task.classes,
        steps=steps,
        seed=settings.seed,
        positions=task.positions,
        batch_size=task.memory.batch_size,
        state=task.state(identity),
        identity=identity,
        ranks=task.ranks,
        progress=progress,
    )
    return _Parts(curve=result, resumed=result.resumed)


def _part(progress: Progress | None, turn: int, turns: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(turn * total + done, turns * total)


def _results_of(combination: Combination | None) -> tuple[AttackResult, ...]:
    return () if combination is None else (*combination.members, *combination.oblivious)


def _short(result: AttackResult | None) -> PgdResult | None:
    if result is None or result.spec.attack != PGD or result.spec.norm != LINF:
        return None
    (stage,) = result.spec.stages
    assert stage.step_size is not None
    spec = AttackSpec(PGD, result.spec.eps, stage.iterations, stage.step_size, result.spec.seed)
    return PgdResult(spec, result.clean, result.robust)


def _short_text(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
