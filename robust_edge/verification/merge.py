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
from robust_edge_runtimes.verdict.statistic import Drop

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
    """Raise InputError where a verdict is not on the artifact and the checkpoint that the manifest names."""
    for source, other in others.items():
        for what, found, wanted in (
            ("judged the artifact", other.artifact_sha256, manifest.artifact.identity),
            ("compared with the checkpoint", other.checkpoint_sha256, manifest.source.checkpoint_sha256),
        ):
            if found != wanted:
                raise InputError(
                    f"{source} {what} {found[:12]} ({other.target}), this bundle has {wanted[:12]} "
                    f"({manifest.target}); copy this bundle to the device and verify there"
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
        added += [_with_budget_of(budget, item) for item in (own, *nested)]
    return with_outcome(dataclasses.replace(verdict, elsewhere=(*verdict.elsewhere, *added)), budget)


def _with_budget_of(budget: Budget, other: MachineResult) -> MachineResult:
    modes = tuple(_with_budget(mode, budget) for mode in other.modes)
    worst = None if other.worst is None else _with_budget(other.worst, budget)
    return dataclasses.replace(other, modes=modes, worst=worst)


def _with_budget(result: Figures, budget: Budget) -> Figures:
    clean: Drop = dataclasses.replace(result.clean_drop, budget=budget.clean)
    robust: Drop = dataclasses.replace(result.robust_drop, budget=budget.robust)
    return dataclasses.replace(result, clean_drop=clean, robust_drop=robust)
