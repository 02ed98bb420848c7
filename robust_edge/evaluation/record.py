"""The records of evaluations in a run, and whether they belong to its present weights."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from robust_edge.attacks.table import ATTACKS
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

OWN_ATTACK = "own-"  # prefix of the record's file name for an attack of the user
RECORD_NAME = re.compile(rf"({'|'.join(ATTACKS)}|{OWN_ATTACK}[\w.]+)(-l2)?(-with-.+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The record of one attack on one checkpoint, or on the average of two.

    Attributes:
        run: name of the run.
        attack: name of the attack, as given to `--attack`.
        checkpoint_sha256: hash of the run's weights.
        limit: value of `--limit`; None for all test images.
        curve: the result of an attack with a list of radii.
        result: the result of any other attack, with an outcome per image; of an average, under the adaptive attack.
        combination: the results of an average of two networks.
        audit: validity checks of the attacked network; None in older records.
        subset: number and selection of the evaluated images.
        resumed: number of batches that an interrupted process had finished.
    """

    run: str
    attack: str
    checkpoint_sha256: str
    dataset_fingerprint: str
    limit: int | None
    versions: dict[str, str]
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
        """The audits of the attacked network and of the members of an average; None for each without an audit."""
        if self.combination is None:
            return (self.audit,)
        return (self.audit, *(self.combination.audits or (None,) * len(self.combination.members)))


def record_name(attack: str, norm: str, other: str | None) -> str:
    """The default file name of a record without its suffix, from attack, norm and second run.

    Args:
        attack: name of the attack, as given to `--attack`.
        norm: `linf` or `l2`.
        other: name of the run that is averaged with, if any.
    """
    name = OWN_ATTACK + attack.replace(":", ".") if ":" in attack else attack
    return name + ("" if norm == LINF else f"-{norm}") + ("" if other is None else f"-with-{other}")


def stored_evaluation(run: Run, name: str) -> Evaluation | None:
    """The record `evaluations/NAME.json` of a run.

    Returns:
        The record, or None if it does not exist, belongs to other weights than the present ones, or was written by
        release 0.1.
    """
    path = run.path / "evaluations" / f"{name}.json"
    if not path.is_file():
        return None
    value = read_json(path)
    if _of_release_0_1(value):
        return None
    if isinstance(value, dict):
        value.pop("pgd", None)  # the same accuracies as in `result`, which older records had twice
    record = decode(Evaluation, value, where=str(path))
    return record if _is_current(run, record) else None


def stored_evaluations(run: Run) -> dict[str, Evaluation | None]:
    """All records of the run by name, in alphabetical order; None as in `stored_evaluation`."""
    folder = run.path / "evaluations"
    paths = folder.glob("*.json") if folder.is_dir() else ()
    names = sorted(path.stem for path in paths if RECORD_NAME.fullmatch(path.stem))
    return {name: stored_evaluation(run, name) for name in names}


def _of_release_0_1(value: object) -> bool:
    """Whether release 0.1 wrote the record: its result has the key `spec`."""
    result = value.get("result") if isinstance(value, dict) else None
    return isinstance(result, dict) and "spec" in result


def _is_current(run: Run, record: Evaluation) -> bool:
    """Whether the record belongs to the present weights of the run, and of the run that it was averaged with."""
    if record.checkpoint_sha256 != run.checkpoint().weights_sha256:
        return False
    pair = record.combination
    return pair is None or _weights_at(run.path.resolve() / pair.other_path) == pair.other_sha256


def _weights_at(path: Path) -> str | None:
    """The hash of the weights of the run at `path`; None if there is no finished run."""
    try:
        return open_run(path).checkpoint().weights_sha256
    except InputError:
        return None
