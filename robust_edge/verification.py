"""Verify on the host: the modes that need the checkpoint, beside those that a device can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from robust_edge.deployment import evaluation_images
from robust_edge.evaluation.oracle import CheckpointOracle
from robust_edge.run import Run
from robust_edge_runtimes.bundle import Bundle
from robust_edge_runtimes.errors import InputError, unknown_name
from robust_edge_runtimes.load import load
from robust_edge_runtimes.manifest import AttackSpec
from robust_edge_runtimes.runtime import BaseRuntime
from robust_edge_runtimes.verify import (
    MODES,
    REPLAY,
    SURROGATE,
    Budget,
    ModeResult,
    Verdict,
    judge,
    replay,
    surrogate,
)

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """What to attack with.

    Attributes:
        modes: any of MODES; empty runs replay, and surrogate where there is a run.
        limit: images per mode; None takes all.
        steps: gradient steps of the surrogate attack.
        seed: of its random start.
        data_dir: where the run's images lie now, if elsewhere.
    """

    modes: tuple[str, ...] = ()
    limit: int | None = None
    steps: int = 20
    seed: int = 1
    data_dir: str | None = None

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise unknown_name("mode", mode, MODES)


def verify_bundle(
    bundle: Bundle,
    run: Run | None,
    budget: Budget,
    settings: VerifySettings,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Verdict:
    """Attack the artifact in every mode and judge it against its checkpoint.

    Raises:
        InputError: surrogate without a run, or a run that the bundle was not exported from.
        BackendUnavailable: the artifact's runtime is not installed here.
    """
    modes = settings.modes or ((REPLAY,) if run is None else (REPLAY, SURROGATE))
    if run is not None:
        _check_origin(bundle, run)
    with load(bundle, threads=threads) as model:
        results = [_run_mode(mode, bundle, model, run, budget, settings, progress) for mode in dict.fromkeys(modes)]
        return judge(bundle, model, results, budget)


def _run_mode(
    mode: str,
    bundle: Bundle,
    model: BaseRuntime,
    run: Run | None,
    budget: Budget,
    settings: VerifySettings,
    progress: Progress | None,
) -> ModeResult:
    attack = bundle.manifest.expected.attack
    if mode == REPLAY:
        return replay(model, bundle.golden(), attack, budget, settings.limit)
    if run is None:
        raise InputError("mode surrogate needs the checkpoint's gradients; name the run with --against RUN")
    split = evaluation_images(run, data_dir=settings.data_dir, limit=settings.limit)
    fresh = AttackSpec("pgd", attack.eps, settings.steps, 2.5 * attack.eps / settings.steps, settings.seed)
    images, labels = split.floats(slice(None)).numpy(), split.labels.numpy()
    oracle, tolerance = CheckpointOracle(run.load_model()), bundle.golden().tolerance
    return surrogate(model, oracle, images, labels, fresh, budget, tolerance=tolerance, progress=progress)


def _check_origin(bundle: Bundle, run: Run) -> None:
    expected, found = bundle.manifest.source.checkpoint_sha256, run.checkpoint().weights_sha256
    if expected != found:
        raise InputError(
            f"{bundle.path} was exported from run {bundle.manifest.source.run!r} (checkpoint {expected[:12]}), not "
            f"from {run.path} (checkpoint {found[:12]}); name the right run with --against"
        )
