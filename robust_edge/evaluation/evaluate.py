"""Evaluate a run and keep the result as JSON, bound to the checkpoint it is true of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from robust_edge.attacks.pgd import Pgd
from robust_edge.deployment import BENIGN_EPS, evaluation_images
from robust_edge.environment import versions
from robust_edge.evaluation.accuracy import Accuracy, PgdResult, evaluate_pgd
from robust_edge.evaluation.curve import CurveResult, evaluate_curve
from robust_edge.run import Run
from robust_edge.training.device import pick_device
from robust_edge_runtimes.decode import decode, read_json
from robust_edge_runtimes.files import write_json
from robust_edge_runtimes.tables import table

DEFAULT_STEPS = {"pgd": 50, "curve": 100}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What to run; None stands for the default that `evaluate_run` names."""

    attack: str = "pgd"
    eps: float | None = None
    steps: int | None = None
    limit: int | None = None
    seed: int = 0
    data_dir: str | None = None
    device: str = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One attack on one checkpoint.

    Attributes:
        limit: how many test images were asked for; None is all.
        pgd: the result of attack `pgd`.
        curve: the result of attack `curve`.
    """

    run: str
    attack: str
    checkpoint_sha256: str
    dataset_fingerprint: str
    limit: int | None
    versions: dict[str, str]
    pgd: PgdResult | None = None
    curve: CurveResult | None = None


def evaluate_run(
    run: Run,
    settings: EvaluateSettings,
    out: Path | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Attack a finished run's test images and write the record.

    Args:
        run: what to attack.
        settings: eps defaults to the run's own (8/255 for a benign run), steps to 50 (pgd) or 100 (curve).
        out: defaults to `evaluations/ATTACK.json` in the run.
        progress: called with (done, total).
    """
    checkpoint, device = run.checkpoint(), pick_device(settings.device)
    model = run.load_model().to(device)
    split = evaluation_images(run, data_dir=settings.data_dir, limit=settings.limit).to(device)
    steps = settings.steps or DEFAULT_STEPS[settings.attack]
    pgd, curve = None, None
    if settings.attack == "pgd":
        eps = settings.eps if settings.eps is not None else run.config.attack.eps or BENIGN_EPS
        pgd = evaluate_pgd(model, split, Pgd(eps=eps, steps=steps), seed=settings.seed, progress=progress)
    else:
        classes = len(checkpoint.model.classes)
        curve = evaluate_curve(model, split, classes, steps=steps, seed=settings.seed, progress=progress)
    record = Evaluation(
        run=run.name,
        attack=settings.attack,
        checkpoint_sha256=checkpoint.weights_sha256,
        dataset_fingerprint=checkpoint.dataset_fingerprint,
        limit=settings.limit,
        versions=versions(),
        pgd=pgd,
        curve=curve,
    )
    write_json(out or run.evaluations / f"{settings.attack}.json", dataclasses.asdict(record))
    return record


def stored_evaluation(run: Run, attack: str) -> Evaluation | None:
    """The record that `evaluate` left in the run, unless it belongs to an older checkpoint."""
    path = run.path / "evaluations" / f"{attack}.json"
    if not path.is_file():
        return None
    record = decode(Evaluation, read_json(path), where=str(path))
    return record if record.checkpoint_sha256 == run.checkpoint().weights_sha256 else None


def evaluation_table(record: Evaluation) -> str:
    """The record for a person."""
    if record.pgd is not None:
        attack = record.pgd.attack
        name = f"PGD-{attack.steps} eps={attack.eps:.4g}"
        rows = [_row("clean", record.pgd.clean), _row(name, record.pgd.robust)]
    else:
        points = record.curve.points if record.curve is not None else ()
        rows = [_row(f"eps={point.eps:g}", point.accuracy) for point in points]
    return table([record.run, "accuracy", "95% interval", "images"], rows)


def _row(name: str, value: Accuracy) -> list[str]:
    interval = f"{100 * value.low:.1f} to {100 * value.high:.1f}"
    return [name, f"{100 * value.value:.1f}%", interval, str(value.images)]
