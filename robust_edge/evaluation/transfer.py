"""Attack images of one network shown to others.

Source: Marshall 2020, Algorithm 3, at rising ε (figures 4.6 and C.2). The images of a source are made once and shown
to every target. Deviation: an image counts as right only if it is right when clean too, as everywhere here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_edge.deployment import evaluation_images
from robust_edge.environment import versions
from robust_edge.evaluation import memory as memories
from robust_edge.evaluation.accuracy import Accuracy, accuracy
from robust_edge.evaluation.adversaries import PGD, Adversary, check_radius, stages_of
from robust_edge.evaluation.audit import Audit, audit_model
from robust_edge.evaluation.campaign import Campaign, Stage, run_campaign
from robust_edge.evaluation.evaluate import Subset, model_identity, same_task
from robust_edge.evaluation.memory import Memory, plan_memory
from robust_edge.evaluation.ranks import Ranks, device_of_rank
from robust_edge.evaluation.subset import SUBSET_SEED, choose
from robust_edge.run import Run
from robust_edge.training.device import pick_device
from robust_edge_runtimes.environment import Machine, machine
from robust_edge_runtimes.errors import InputError
from robust_edge_runtimes.files import write_json

EPSILONS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
STEPS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferSettings:
    """How the images are made.

    Attributes:
        epsilons: rising ℓ∞ radii above 0.
        steps: gradient steps at every ε; the last iterate is what the targets see.
        limit: use a fixed random subset of so many test images.
        batch: most images at a time.
        memory_mib: what batches may use.
    """

    epsilons: tuple[float, ...] = EPSILONS
    steps: int = STEPS
    seed: int = 0
    limit: int | None = None
    data_dir: str | None = None
    device: str = "auto"
    batch: int = memories.MOST_IMAGES
    memory_mib: int = memories.DEFAULT_BUDGET_MIB

    def __post_init__(self) -> None:
        if not self.epsilons:
            raise InputError("--eps: at least one radius is needed")
        for eps in self.epsilons:
            check_radius(eps, "linf")
        if list(self.epsilons) != sorted(set(self.epsilons)):
            raise InputError(f"--eps: radii must rise; they are {', '.join(f'{eps:g}' for eps in self.epsilons)}")


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
        curves: source by source, and for each every target in the order of `networks`.
    """

    dataset_fingerprint: str
    steps: int
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


def run_transfer(
    sources: Sequence[Run],
    targets: Sequence[Run],
    settings: TransferSettings,
    out: Path,
    *,
    ranks: Ranks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Transfer:
    """Run Algorithm 3 for every source and write the matrix.

    Args:
        sources: whose gradients make the images.
        targets: who are shown them.
        settings: radii, steps, images.
        out: the JSON file; a state file stands beside it until the end.
        ranks: the processes that share the work.
        progress: called with (done, total).

    Raises:
        InputError: no source or target, the same name twice, or runs of other classes, sizes or images.
    """
    start, ranks = time.monotonic(), ranks or Ranks()
    runs = _named([*sources, *targets])
    if not sources or not targets:
        raise InputError("transfer needs at least one --source and one --target")
    if out.is_dir():
        raise InputError(f"-o {out} is a folder; name the JSON file to write")
    same_task(runs.values())
    device = device_of_rank(pick_device(settings.device))
    models = {name: run.load_model().to(device) for name, run in runs.items()}
    first = next(iter(runs.values()))
    whole = evaluation_images(first, data_dir=settings.data_dir)
    split, positions = choose(whole.to(device), settings.limit)
    classes = len(first.checkpoint().model.classes)
    plans = [
        plan_memory(model, split.floats(slice(0, 1)), classes, budget_mib=settings.memory_mib, most=settings.batch)
        for model in models.values()
    ]
    plan = min(plans, key=lambda item: item.batch_size)
    hashes = {name: run.checkpoint().weights_sha256 for name, run in runs.items()}
    shown = list(dict.fromkeys(run.name for run in targets))
    curves: list[TransferCurve] = []
    names = list(dict.fromkeys(run.name for run in sources))
    for turn, source in enumerate(names):
        stages = _stages(models[source], settings, classes, plan.batch_size)
        judged = [source, *(name for name in shown if name != source)]
        identity = model_identity(hashes[source], [hashes[name] for name in judged], positions, plan.batch_size)
        campaign = Campaign(
            judges=tuple(models[name] for name in judged),
            split=split,
            positions=positions,
            stages=stages,
            cumulative=False,
            batch_size=plan.batch_size,
            identity=f"{identity} {settings.steps} {settings.seed} {settings.epsilons}",
        )
        state = out.with_name(f".{out.stem}.{identity}.state")
        tally = run_campaign(campaign, state=state, ranks=ranks, progress=_part(progress, turn, len(names)))
        for place, name in enumerate(judged):
            curves.append(_curve(source, name, settings, tally.clean[place], tally.held[:, place]))
    result = Transfer(
        dataset_fingerprint=first.checkpoint().dataset_fingerprint,
        steps=settings.steps,
        seed=settings.seed,
        positions=positions,
        sources=tuple(names),
        targets=tuple(shown),
        networks=tuple(
            Network(
                name,
                run.checkpoint().model.arch,
                hashes[name],
                audit_model(models[name], split, eps=settings.epsilons[-1], norm="linf", seed=settings.seed),
            )
            for name, run in runs.items()
        ),
        curves=tuple(curves),
        subset=Subset(len(split), len(whole), SUBSET_SEED if len(split) < len(whole) else None),
        memory=plan.finished(device),
        versions=versions(),
        machine=machine(),
        seconds=round(time.monotonic() - start, 3),
    )
    if ranks.writes:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, dataclasses.asdict(result))
    return result


def _stages(model: nn.Module, settings: TransferSettings, classes: int, batch: int) -> tuple[Stage, ...]:
    stages = []
    for eps in settings.epsilons:
        adversary = Adversary(attack=PGD, eps=eps, steps=settings.steps, seed=settings.seed, last=True)
        _, (stage,) = stages_of(model, adversary, classes=classes, batch_size=batch, device=torch.device("cpu"))
        stages.append(dataclasses.replace(stage, name=f"eps={eps:g}"))
    return tuple(stages)


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


def _part(progress: Callable[[int, int], None] | None, turn: int, turns: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(turn * total + done, turns * total)
