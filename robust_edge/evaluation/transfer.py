"""Attack images of one network shown to others.

Source: Marshall 2020, Algorithm 3, at rising ε (figures 4.6 and C.2). The images of a source are made once and shown
to every target. Deviation: an image counts as right only if it is right when clean too, as everywhere here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robust_edge.attacks.attack import Attack
from robust_edge.attacks.curve import Curve
from robust_edge.attacks.table import PGD, attack_class, build_attack, setting_names
from robust_edge.evaluation import memory as memories
from robust_edge.evaluation.accuracy import Accuracy, accuracy
from robust_edge.evaluation.audit import Audit, audit_memory, audit_model, audit_steps, audit_transfer
from robust_edge.evaluation.campaign import Campaign, Progress, Stage, part_of, run_campaign
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.subset import Subset
from robust_edge.evaluation.task import Task, check_radius, prepare_task, state_file
from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_json
from robust_edge_runtimes.verdict.flags import Check

EPSILONS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
STEPS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How the images are made.

    Attributes:
        attack: a name of ATTACKS, or `package.module:Class`; the targets see what its `for_transfer` makes, the last
            iterate of PGD.
        epsilons: rising ℓ∞ radii above 0.
        steps: the attack's setting of that name; None for STEPS.
        limit: use a fixed random subset of so many test images.
        batch: most images at a time.
        memory_mib: what batches may use.
        fresh: throw away what a killed transfer left, instead of going on with it.
    """

    attack: str = PGD
    epsilons: tuple[float, ...] = EPSILONS
    steps: int | None = None
    seed: int = 0
    limit: int | None = None
    data_dir: str | None = None
    device: str = "auto"
    batch: int = memories.MOST_IMAGES
    memory_mib: int = memories.DEFAULT_BUDGET_MIB
    fresh: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "batch", "memory_mib", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.partition('_')[0]} must be at least 1, it is {value}")
        attack = self.build()
        if isinstance(attack, Curve) or LINF not in attack.norms:
            raise InputError(f"--attack {self.attack}: transfer takes attacks of one radius in linf")
        if not self.epsilons:
            raise InputError("--eps: at least one radius is needed")
        for eps in self.epsilons:
            check_radius(Threat(eps))
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise InputError(f"--eps: radii must rise; they are {', '.join(f'{eps:g}' for eps in self.epsilons)}")

    def build(self) -> Attack:
        """The attack with its settings, as its images are shown to other networks."""
        default = STEPS if "steps" in setting_names(attack_class(self.attack)) else None
        return build_attack(self.attack, {"steps": self.steps or default}).for_transfer()


@dataclasses.dataclass(frozen=True)
class TransferPoint:
    """One target at one ε; `held` has a digit per image, 1 where it is right when clean and under attack."""

    eps: float
    accuracy: Accuracy
    held: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferCurve:
    """One target under one source's images; white-box where both are the same run."""

    source: str
    target: str
    clean: Accuracy
    points: tuple[TransferPoint, ...]


@dataclasses.dataclass(frozen=True)
class Network:
    """A run that took part, and whether its figures can be trusted."""

    name: str
    arch: str
    checkpoint_sha256: str
    audit: Audit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
    """The matrix.

    Attributes:
        steps: gradient steps at every ε; None where the attack has no such setting.
        curves: source by source, and for each every target in the order of `networks`.
        attack: as `--attack` names it.
        title: of the attack in a text; empty in older records.
        settings: the fields of its class that are set; empty in older records.
    """

    dataset_fingerprint: str
    steps: int | None
    seed: int
    positions: tuple[int, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    networks: tuple[Network, ...]
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
    """Run Algorithm 3 for every source and write the matrix.

    Args:
        sources: the runs whose networks the images are made on.
        targets: the runs whose networks classify them.
        settings: radii, steps, images.
        out: the JSON file; a state file stands beside it until the end.
        ranks: the processes that share the work.
        progress: called with (done, total).
        note: called with a line for a person.

    Raises:
        InputError: no source or target, the same name twice, or runs of other classes, sizes or images.
    """
    start = time.monotonic()
    runs = _named([*sources, *targets])
    if not sources or not targets:
        raise InputError("transfer needs at least one --source and one --target")
    if out.is_dir():
        raise InputError(f"-o {out} is a folder; name the JSON file to write")
    task = prepare_task([*runs.values()], limit=settings.limit, data_dir=settings.data_dir, device=settings.device)
    plan = task.plan(task.models, budget_mib=settings.memory_mib, most=settings.batch)
    attack = settings.build()
    job = _Job(task=task, settings=settings, attack=attack, plan=plan, out=out, ranks=ranks or Ranks())
    if job.ranks.writes:
        out.parent.mkdir(parents=True, exist_ok=True)
    if note is not None:
        note(plan.line())
    from_names = list(dict.fromkeys(run.name for run in sources))
    shown_names = list(dict.fromkeys(run.name for run in targets))
    audits = {name: _audit(job, model) for name, model in zip(runs, task.models, strict=True)}
    curves: list[TransferCurve] = []
    for turn, source in enumerate(from_names):
        judged = [source, *(name for name in shown_names if name != source)]
        curves += _shown(job, source, judged, part_of(progress, turn, len(from_names)))
    memory = plan.finished(task.device)
    result = Transfer(
        dataset_fingerprint=task.dataset_fingerprint,
        steps=getattr(attack, "steps", None),
        seed=settings.seed,
        positions=task.positions,
        sources=tuple(from_names),
        targets=tuple(shown_names),
        networks=tuple(
            Network(
                name,
                checkpoint.model.arch,
                checkpoint.weights_sha256,
                audits[name].with_checks((*_outcome(name, curves), *audit_steps(attack), audit_memory(memory))),
            )
            for name, checkpoint in zip(runs, task.checkpoints, strict=True)
        ),
        curves=tuple(curves),
        subset=task.subset,
        memory=memory,
        versions=versions(),
        machine=machine(),
        seconds=round(time.monotonic() - start, 3),
        attack=settings.attack,
        title=attack.title,
        settings=attack.settings(),
    )
    if job.ranks.writes:
        write_json(out, dataclasses.asdict(result))
    return result


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Job:
    """A task and what is to be done."""

    task: Task
    settings: TransferSettings
    attack: Attack
    plan: Memory
    out: Path
    ranks: Ranks


def _audit(job: _Job, model: nn.Module) -> Audit:
    radii = job.settings.epsilons
    middle = radii[len(radii) // 2]  # at the largest radius little is left to tell apart
    batch = job.plan.batch_size
    return audit_model(model, job.task.split, threat=Threat(middle), seed=job.settings.seed, batch_size=batch)


def _outcome(name: str, curves: Sequence[TransferCurve]) -> list[Check]:
    """What a network's accuracy under others' images says of that under its own, where both were measured."""
    own = next((curve for curve in curves if curve.source == curve.target == name), None)
    others = [curve for curve in curves if curve.target == name != curve.source]
    if own is None or not others:
        return []
    gained = max(
        mine.accuracy.correct - theirs.accuracy.correct
        for other in others
        for mine, theirs in zip(own.points, other.points, strict=True)
    )
    detail = f"images made on another network break at most {max(gained, 0)} image(s) more than its own at any ε"
    return [audit_transfer(gained, own.clean.images, detail)]


def _shown(job: _Job, source: str, judged: Sequence[str], progress: Progress | None) -> list[TransferCurve]:
    """One source's images before itself and every target."""
    task, settings, batch = job.task, job.settings, job.plan.batch_size
    models = {run.name: model for run, model in zip(task.runs, task.models, strict=True)}
    how = (settings.attack, job.attack.settings(), settings.epsilons, settings.seed)
    identity = task.identity(source, judged, how, batch)
    campaign = Campaign(
        model=models[source],
        judges=tuple(models[name] for name in judged),
        split=task.split,
        positions=task.positions,
        stages=tuple(Stage(f"eps={eps:g}", job.attack, Threat(eps)) for eps in settings.epsilons),
        cumulative=False,
        batch_size=batch,
        seed=settings.seed,
        identity=identity,
    )
    state = state_file(job.out, identity, job.ranks, fresh=settings.fresh)
    tally = run_campaign(campaign, state=state, ranks=job.ranks, progress=progress)
    return [
        _curve(source, name, settings, tally.clean[place], tally.held[:, place]) for place, name in enumerate(judged)
    ]


def _curve(source: str, target: str, settings: TransferSettings, clean: Tensor, held: Tensor) -> TransferCurve:
    points = []
    for eps, row in zip(settings.epsilons, held, strict=True):
        bits = "".join("01"[bit] for bit in row.int().tolist())
        points.append(TransferPoint(eps, accuracy(int(row.sum()), len(row)), bits))
    return TransferCurve(
        source=source, target=target, clean=accuracy(int(clean.sum()), len(clean)), points=tuple(points)
    )


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by name; one that is source and target stands once."""
    found: dict[str, Run] = {}
    for run in runs:
        known = found.setdefault(run.name, run)
        if known.path.resolve() != run.path.resolve():
            raise InputError(f"{known.path} and {run.path} have the same name; rename one of them")
    return found
