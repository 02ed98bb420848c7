"""What an evaluation leaves in its run, and whether it is still true of the networks there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from robust_edge.attacks.table import ATTACKS
from robust_edge.evaluation.accuracy import PgdResult
from robust_edge.evaluation.audit import Audit
from robust_edge.evaluation.combination import Combination
from robust_edge.evaluation.curve import CurveResult
from robust_edge.evaluation.memory import Memory
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.subset import Subset
from robust_edge.run.directory import Run, open_run
from robust_edge_runtimes.attacks.threat import LINF
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.errors import InputError

OWN_ATTACK = "own-"  # before the name of an attack of the user's, in the name of its record
RECORD_NAME = re.compile(rf"({'|'.join(ATTACKS)}|{OWN_ATTACK}[\w.]+)(-l2)?(-with-.+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One attack on one checkpoint, or on the average of two.

    Attributes:
        limit: how many test images were asked for; None is all.
        pgd: the result of attack `pgd` in ℓ∞, in short.
        curve: the result of attack `curve`.
        result: every other attack, image by image; of a combination, the average under the adaptive attack.
        combination: of an average of two networks.
        audit: of the attacked network; None in records from before there was one.
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

    @property
    def audits(self) -> tuple[Audit | None, ...]:
        """Of the attacked network, and of the members of an average; None where there was no audit."""
        if self.combination is None:
            return (self.audit,)
        return (self.audit, *(self.combination.audits or (None,) * len(self.combination.members)))


def record_name(attack: str, norm: str, other: str | None) -> str:
    """The file name of a record, where `-o` names none: one for each attack, norm and partner, which `report` shows.

    Args:
        attack: as `--attack` spells it.
        norm: `linf` or `l2`.
        other: name of the run that is averaged with, if any.
    """
    name = OWN_ATTACK + attack.replace(":", ".") if ":" in attack else attack
    return name + ("" if norm == LINF else f"-{norm}") + ("" if other is None else f"-with-{other}")


def stored_evaluation(run: Run, name: str) -> Evaluation | None:
    """The record `evaluations/NAME.json` of a run.

    Returns:
        None where there is none, where it belongs to other weights than the networks have now, and where release 0.1
        wrote it.
    """
    path = run.path / "evaluations" / f"{name}.json"
    if not path.is_file():
        return None
    value = read_json(path)
    if _of_release_0_1(value):
        return None
    record = decode(Evaluation, value, where=str(path))
    return record if _current(run, record) else None


def stored_evaluations(run: Run) -> dict[str, Evaluation | None]:
    """Every record in the run by its name, in order; None as in `stored_evaluation`."""
    folder = run.path / "evaluations"
    paths = folder.glob("*.json") if folder.is_dir() else ()
    names = sorted(path.stem for path in paths if RECORD_NAME.fullmatch(path.stem))
    return {name: stored_evaluation(run, name) for name in names}


def _of_release_0_1(value: object) -> bool:
    """Whether the attack stands in the result's `spec`."""
    result = value.get("result") if isinstance(value, dict) else None
    return isinstance(result, dict) and "spec" in result


def _current(run: Run, record: Evaluation) -> bool:
    if record.checkpoint_sha256 != run.checkpoint().weights_sha256:
        return False
    pair = record.combination
    return pair is None or _weights_at(run.path.resolve() / pair.other_path) == pair.other_sha256


def _weights_at(path: Path) -> str | None:
    """The hash of a run's weights; None where no finished run stands any more."""
    try:
        return open_run(path).checkpoint().weights_sha256
    except InputError:
        return None
