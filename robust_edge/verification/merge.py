"""Merge a device's verdict on the same artifact into the host's verdict, and judge both with one budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar

from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import Manifest
from robust_edge_runtimes.verdict.judge import VERDICT_VERSION, MachineResult, Verdict, with_outcome
from robust_edge_runtimes.verdict.measurement import Budget, ModeResult, WorstCase
from robust_edge_runtimes.verdict.statistic import MOST_IMAGES, Drop, drop_of_counts, level_of_look, looks

ROUNDING = 1e-6  # points
MOST_LOOKS = len(looks(MOST_IMAGES))
Figures = TypeVar("Figures", ModeResult, WorstCase)


def read_verdict(path: Path) -> Verdict:
    """Read what `verify -o` wrote.

    Raises:
        InputError: it is something else, or of another version.
    """
    try:
        verdict = decode(Verdict, read_json(path), where=path.name)
    except InputError as cause:
        raise InputError(f"{path} is not what `verify` writes: {cause}") from cause
    if verdict.schema_version != VERDICT_VERSION:
        raise InputError(
            f"{path} has schema_version {verdict.schema_version}, this release reads {VERDICT_VERSION}; "
            "verify again on the device with this release"
        )
    return verdict


def refuse_other_artifacts(others: dict[str, Verdict], manifest: Manifest) -> None:
    """Raise InputError where a verdict is not on the artifact, the checkpoint, target and radius of the manifest."""
    eps = manifest.expected.attack.eps
    for source, other in others.items():
        modes = [*other.modes, *(mode for nested in other.elsewhere for mode in nested.modes)]
        for what, found, wanted in (
            ("judged the artifact", other.artifact_sha256[:12], manifest.artifact.identity[:12]),
            ("compared with the checkpoint", other.checkpoint_sha256[:12], manifest.source.checkpoint_sha256[:12]),
            ("judged a bundle for", other.target, manifest.target),
            *((f"attacked in mode {mode.mode} at eps", f"{mode.attack.eps:.4g}", f"{eps:.4g}") for mode in modes),
        ):
            if found != wanted:
                raise InputError(
                    f"{source} {what} {found} ({other.target}), this bundle has {wanted} ({manifest.target}); copy "
                    "this bundle to the device and verify there"
                )


def merged(verdict: Verdict, others: dict[str, Verdict], budget: Budget) -> Verdict:
    """Add the figures of other machines to a verdict; the outcomes of their own verdicts are ignored.

    Args:
        verdict: the verdict of this machine.
        others: verdicts on the same artifact, by the name of the file that they were read from.
        budget: the budget for all figures.
    """
    added: list[MachineResult] = []
    for source, other in others.items():
        own = MachineResult(source, other.runtime, other.machine, other.parity, other.modes, other.flags, other.worst)
        nested = [dataclasses.replace(item, source=f"{source}, {item.source}") for item in other.elsewhere]
        if not 1 <= other.looks <= MOST_LOOKS:
            raise InputError(f"{source} names {other.looks} looks, 1 to {MOST_LOOKS} are possible; verify again there")
        level = level_of_look(other.looks, last=True)
        added += [_under(budget, item, level) for item in (own, *nested)]
    return with_outcome(dataclasses.replace(verdict, elsewhere=(*verdict.elsewhere, *added)), budget)


def _under(budget: Budget, other: MachineResult, level: float) -> MachineResult:
    modes = tuple(_recomputed(other.source, mode, budget, level) for mode in other.modes)
    worst = None if other.worst is None else _recomputed(other.source, other.worst, budget, level)
    return dataclasses.replace(other, modes=modes, worst=worst)


def _recomputed(source: str, result: Figures, budget: Budget, level: float) -> Figures:
    """The same counts with drops and intervals that follow from them.

    Raises:
        InputError: the accuracies beside the counts are others.
    """
    clean = _drop(source, result, "clean", budget.clean, level)
    robust = _drop(source, result, "robust", budget.robust, level)
    return dataclasses.replace(result, clean_drop=clean, robust_drop=robust)


def _refuse_counts(source: str, written: Drop, images: int) -> None:
    counts = (written.lost, written.gained)
    if not 1 <= images <= MOST_IMAGES or min(counts) < 0 or sum(counts) > images:
        raise InputError(
            f"{source}: {written.lost:g} lost and {written.gained:g} gained of {images} images cannot be; verify again "
            "on the device"
        )


def _drop(source: str, result: ModeResult | WorstCase, name: str, budget: float, level: float) -> Drop:
    written: Drop = getattr(result, f"{name}_drop")
    _refuse_counts(source, written, result.images)
    own = drop_of_counts(written.lost, written.gained, result.images, budget, level)
    reference, artifact = getattr(result, f"reference_{name}"), getattr(result, f"artifact_{name}")
    if abs(100 * (reference - artifact) - own.points) > ROUNDING:
        raise InputError(
            f"{source}: {name} accuracies of {reference:.4g} and {artifact:.4g} contradict {written.lost:g} lost and "
            f"{written.gained:g} gained of {result.images} images; verify again on the device"
        )
    return own
