"""All modes on one bundle, against the run that it was exported from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from robust_edge.deployment import GOLDEN_TOLERANCE, evaluation_images
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.run.directory import Run
from robust_edge.verification.draw import draw
from robust_edge.verification.twins.table import has_twin, twin_of
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable, TwinError
from robust_edge.verification.whitebox import Parts, whitebox
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.decode import SHOWN
from robust_edge_runtimes.core.errors import BundleError, InputError, unknown_name
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.load import load
from robust_edge_runtimes.scoring import relative_error
from robust_edge_runtimes.verdict.fresh import Fresh, from_golden
from robust_edge_runtimes.verdict.verdict import Flag
from robust_edge_runtimes.verdict.verify import (
    BLACKBOX,
    MODES,
    REPLAY,
    SURROGATE,
    WHITEBOX,
    Budget,
    Trial,
    Verdict,
    blackbox,
    judge,
    replay,
    surrogate,
)

LIMIT = 500
# Share of images on which 8 bits may stray further than the bundle's tolerance: those that leave the calibrated ranges
# do, at most 3% in benchmarks/results/rounded_parity.json; another network does on nearly all. Other precisions: none.
STRAYS = {"int8": 0.1}
Progress = Callable[[int, int], None]
ProgressOf = Callable[[str], Progress]
"""A mode's name to what is called with (steps done, steps in all)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """What to attack with.

    Attributes:
        modes: any of MODES; empty runs replay, and surrogate and whitebox where there is a run.
        limit: most images per mode; None for all stored ones and LIMIT drawn ones.
        steps: gradient steps of the surrogate and the white-box attack.
        queries: looks at the artifact per image of the black-box attack.
        seed: of the draw of images and of every attack.
        data_dir: where the run's images lie now, if elsewhere.
    """

    modes: tuple[str, ...] = ()
    limit: int | None = None
    steps: int = 20
    queries: int = 500
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
    progress: ProgressOf | None = None,
) -> Verdict:
    """Attack the artifact in every mode and judge it against its checkpoint.

    Raises:
        InputError: surrogate without a run, or a run that the bundle was not exported from.
        BundleError: the bundle contradicts itself, or the run, in what is no matter of degree.
        BackendUnavailable: the artifact's runtime is not installed here.
    """
    modes = settings.modes or ((REPLAY,) if run is None else (REPLAY, SURROGATE, WHITEBOX))
    if run is not None:
        _check_origin(bundle, run)
    elif SURROGATE in modes:
        raise InputError("mode surrogate needs the checkpoint's gradients; name the run with --against RUN")
    with load(bundle, threads=threads) as model:
        bench = _Bench(bundle, model, run, settings)
        trials = [bench.tried(mode, None if progress is None else progress(mode)) for mode in dict.fromkeys(modes)]
        return judge(bundle, model, trials, budget)


class _Bench:
    """One artifact with its checkpoint, its images and its twin, each made when the first mode asks for it."""

    def __init__(self, bundle: Bundle, model: BaseRuntime, run: Run | None, settings: VerifySettings) -> None:
        self._bundle = bundle
        self._model = model
        self._run = run
        self._settings = settings
        self._golden = bundle.golden()
        self._eps = bundle.manifest.expected.attack.eps
        if run is not None:  # a bundle may have been attacked in a smaller ball than the checkpoint was trained for
            self._eps = max(self._eps, run.config.attack.eps)
        self._checkpoint = None if run is None else TorchOracle(run.load_model())
        self._drawn: Fresh | None = None

    def tried(self, mode: str, progress: Progress | None) -> Trial:
        """Run one mode."""
        if mode == REPLAY:
            trial = replay(self._model, self._golden, self._bundle.manifest.expected.attack, self._settings.limit)
            return dataclasses.replace(trial, flags=(*trial.flags, *self._forged()))
        if mode == SURROGATE:
            assert self._checkpoint is not None
            return surrogate(
                self._model,
                self._checkpoint,
                self._fresh(),
                self._gradient_attack(0),
                tolerance=self._golden.tolerance,
                strays=STRAYS.get(self._bundle.manifest.artifact.precision, 0.0),
                progress=progress,
            )
        if mode == WHITEBOX:
            return self._whitebox(progress)
        assert mode == BLACKBOX
        attack = AttackSpec("square", self._eps, self._settings.queries, 0.0, self._settings.seed)
        reference = self._golden if self._checkpoint is None else self._checkpoint.logits
        return blackbox(self._model, self._fresh(), attack, reference, progress=progress)

    def _forged(self) -> tuple[Flag, ...]:
        """A flag where the answers that the bundle stores are not those of its checkpoint."""
        if self._checkpoint is None:
            return ()
        golden = self._golden
        stored = np.concatenate([golden.clean_logits, golden.attacked_logits])
        own = np.concatenate([self._checkpoint.logits(images) for images in (golden.clean, golden.attacked)])
        error = relative_error(stored, own)
        if error <= GOLDEN_TOLERANCE:
            return ()
        detail = f"the logits in golden.npz are not the checkpoint's, by {error:.2g} (relative): replay proves nothing"
        return (Flag("forged_answers", detail),)

    def _whitebox(self, progress: Progress | None) -> Trial:
        twin, flags = self._twin()
        reference = None if self._checkpoint is None else self._checkpoint.logits
        precision = self._bundle.manifest.artifact.precision
        parts = Parts(self._model, twin, self._golden, precision, reference)
        trial = whitebox(parts, self._fresh(), self._gradient_attack(1), progress=progress)
        return dataclasses.replace(trial, flags=(*flags, *trial.flags))

    def _twin(self) -> tuple[Differentiable, tuple[Flag, ...]]:
        """The artifact's twin, or the checkpoint where there can be none, or where there should be one, with a flag."""
        try:
            return twin_of(self._bundle), ()
        except TwinError as cause:
            if self._run is None:
                raise InputError(f"mode whitebox: {cause}; name the run with --against RUN") from cause
            stand_in = Differentiable(self._run.load_model(), CHECKPOINT)
            known = has_twin(self._bundle.manifest.artifact.format)
            return stand_in, (Flag("no_twin", str(cause)),) if known else ()

    def _gradient_attack(self, number: int) -> AttackSpec:
        """Every mode starts elsewhere in the ball, so that together they are restarts of one attack."""
        steps = self._settings.steps
        return AttackSpec("pgd", self._eps, steps, 2.5 * self._eps / steps, self._settings.seed + number)

    def _fresh(self) -> Fresh:
        if self._drawn is None:
            limit = LIMIT if self._settings.limit is None else self._settings.limit
            seed = self._settings.seed
            if self._run is None:
                self._drawn = from_golden(self._golden, limit, seed)
            else:
                split = evaluation_images(self._run, data_dir=self._settings.data_dir)
                self._drawn = draw(split, self._golden, limit, seed)
        return self._drawn


def _check_origin(bundle: Bundle, run: Run) -> None:
    checkpoint, source = run.checkpoint(), bundle.manifest.source
    expected, found = source.checkpoint_sha256, checkpoint.weights_sha256
    if expected != found:
        raise InputError(
            f"{bundle.path} was exported from run {source.run!r} (checkpoint {expected[:12]}), not "
            f"from {run.path} (checkpoint {found[:12]}); name the right run with --against"
        )
    named, meant = bundle.manifest.classes, checkpoint.model.classes
    if named != meant:
        raise BundleError(
            f"{bundle.path} names the classes {SHOWN.repr(named)}, its checkpoint {SHOWN.repr(meant)}: right answers "
            "would get wrong names; export it again"
        )
