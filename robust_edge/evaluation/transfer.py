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

from torch import Tensor, nn

from robust_edge.attacks.attack import Attack
from robust_edge.attacks.table import PGD, attack_class, build_attack, setting_names
from robust_edge.evaluation.accuracy import Accuracy, accuracy
from robust_edge.evaluation.audit import Audit, audit_memory, audit_model, audit_steps, audit_transfer
from robust_edge.evaluation.campaign import Campaign, Progress, Stage, part_of, run_campaign
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.settings import EvaluationSettings
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
class TransferSettings(EvaluationSettings):
    """How the images are made; the targets see what the attack's `for_transfer` makes, the last iterate of PGD.

    Attributes:
        epsilons: rising ℓ∞ radii above 0.
    """

    epsilons: tuple[float, ...] = EPSILONS

    def __post_init__(self) -> None:
        super().__post_init__()
        attack = self.build()
        if attack.radii or LINF not in attack.norms:
            raise InputError(f"--attack {self.attack}: transfer needs an attack with a single radius in linf")
        if not self.epsilons:
            raise InputError("--eps: at least one radius is needed")
        for eps in self.epsilons:
            check_radius(Threat(eps))
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise InputError(f"--eps: radii must increase; they are {', '.join(f'{eps:g}' for eps in self.epsilons)}")

    def build(self) -> Attack:
        """The variant of the attack for transfer, with its settings."""
        given = {} if self.steps is None else {"steps": self.steps}
        default = STEPS if "steps" in setting_names(attack_class(self.attack)) else None
        return build_attack(self.attack, {"steps": default, **self.options, **given}).for_transfer()


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
class Network:
    """A source or target, with its validity checks."""

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
        InputError: there is no source or no target, two runs have the same name, or the runs differ in classes,
            image shape or test images.
    """
    start = time.monotonic()
    runs = _runs_by_name([*sources, *targets])
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
        note(plan.summary())
    source_names = list(dict.fromkeys(run.name for run in sources))
    target_names = list(dict.fromkeys(run.name for run in targets))
    audits = {name: _audit(job, model) for name, model in zip(runs, task.models, strict=True)}
    curves: list[TransferCurve] = []
    for turn, source in enumerate(source_names):
        evaluated = [source, *(name for name in target_names if name != source)]
        curves += _evaluate_source(job, source, evaluated, part_of(progress, turn, len(source_names)))
    memory = plan.finished(task.device)
    result = Transfer(
        dataset_fingerprint=task.dataset_fingerprint,
        steps=getattr(attack, "steps", None),
        seed=settings.seed,
        positions=task.positions,
        sources=tuple(source_names),
        targets=tuple(target_names),
        networks=tuple(
            Network(
                name,
                checkpoint.model.arch,
                checkpoint.weights_sha256,
                audits[name].with_checks((*_transfer_check(name, curves), *audit_steps(attack), audit_memory(memory))),
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
    """A task, the attack to run on it, and where the result is written."""

    task: Task
    settings: TransferSettings
    attack: Attack
    plan: Memory
    out: Path
    ranks: Ranks


def _audit(job: _Job, model: nn.Module) -> Audit:
    radii = job.settings.epsilons
    middle = radii[len(radii) // 2]  # at the largest radius hardly any image is still right
    batch = job.plan.batch_size
    return audit_model(model, job.task.split, threat=Threat(middle), seed=job.settings.seed, batch_size=batch)


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


def _evaluate_source(
    job: _Job, source: str, evaluated: Sequence[str], progress: Progress | None
) -> list[TransferCurve]:
    """Compute the images of one source and evaluate the named networks on them."""
    task, settings, batch = job.task, job.settings, job.plan.batch_size
    models = {run.name: model for run, model in zip(task.runs, task.models, strict=True)}
    details = (settings.attack, job.attack.settings(), settings.epsilons, settings.seed)
    identity = task.identity(source, evaluated, details, batch)
    campaign = Campaign(
        model=models[source],
        evaluated=tuple(models[name] for name in evaluated),
        split=task.split,
        positions=task.positions,
        stages=tuple(Stage(f"eps={eps:g}", job.attack, Threat(eps)) for eps in settings.epsilons),
        cumulative=False,
        batch_size=batch,
        seed=settings.seed,
        identity=identity,
    )
    state = state_file(job.out, identity, job.ranks, fresh=settings.fresh)
    result = run_campaign(campaign, state=state, ranks=job.ranks, progress=progress)
    return [
        _curve(source, name, settings, result.clean[index], result.robust[:, index])
        for index, name in enumerate(evaluated)
    ]


def _curve(source: str, target: str, settings: TransferSettings, clean: Tensor, robust: Tensor) -> TransferCurve:
    points = []
    for eps, row in zip(settings.epsilons, robust, strict=True):
        digits = "".join("01"[bit] for bit in row.int().tolist())
        points.append(TransferPoint(eps, accuracy(int(row.sum()), len(row)), digits))
    return TransferCurve(
        source=source, target=target, clean=accuracy(int(clean.sum()), len(clean)), points=tuple(points)
    )


def _runs_by_name(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by name; a run that is both source and target appears once."""
    by_name: dict[str, Run] = {}
    for run in runs:
        known = by_name.setdefault(run.name, run)
        if known.path.resolve() != run.path.resolve():
            raise InputError(f"{known.path} and {run.path} have the same name; rename one of them")
    return by_name
