"""The sentence that a reviewer signs: which artifact was attacked, how, with what result, where and when."""

from __future__ import annotations

from robust_edge.reporting.formats import attack
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.present.tables import percent
from robust_edge_runtimes.verdict.judge import Verdict
from robust_edge_runtimes.verdict.measurement import ModeResult


def sign_off(verdict: Verdict) -> str:
    """The sentence, which contains everything that is needed to repeat the verdict."""
    word = "Signed off" if verdict.passed else "Not signed off"
    parts = [
        f"{word}: artifact sha256 {verdict.artifact_sha256} ({verdict.target}), checkpoint sha256 "
        f"{verdict.checkpoint_sha256}",
        *(_figures(mode) for mode in verdict.modes),
    ]
    if verdict.worst is not None:
        parts.append(
            f"right in every mode {percent(verdict.worst.artifact_robust)} of {verdict.worst.images} images "
            f"(checkpoint {percent(verdict.worst.reference_robust)})"
        )
    parts.append(_place(verdict.runtime, verdict.machine))
    for other in verdict.elsewhere:
        parts += [*(_figures(mode) for mode in other.modes), f"{_place(other.runtime, other.machine)} ({other.source})"]
    return "; ".join(parts) + "."


def _figures(mode: ModeResult) -> str:
    return (
        f"{mode.mode} ({attack(mode)}, seed {mode.attack.seed}, {mode.images} images) clean "
        f"{percent(mode.artifact_clean)}, robust {percent(mode.artifact_robust)} (checkpoint "
        f"{percent(mode.reference_clean)}, {percent(mode.reference_robust)})"
    )


def _place(runtime: RuntimeInfo, machine: Machine) -> str:
    return f"by {runtime.backend} {runtime.version} ({runtime.provider}) on {machine.cpu}, {machine.utc}"
