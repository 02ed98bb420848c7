"""A benign and a robust network averaged, attacked by someone who knows it and by someone who does not.

Source: Marshall 2020, Table C.1. The thesis attacks one member and shows the images to the average; that is
called oblivious here. An adversary who knows of the average follows its gradients: adaptive.
"""

from __future__ import annotations

import dataclasses

from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.audit import Audit
from robust_edge.evaluation.outcome import AttackResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """All rows of Table C.1 for one pair and one attack.

    Attributes:
        other: the second run.
        other_sha256: of its checkpoint.
        other_path: where it lies, seen from the first run; empty in older records.
        members: each network on its own, attacked through its own gradients.
        oblivious: the average under images made on the one, and on the other member.
        adaptive: the average under images made with its own gradients.
        every: the average right when clean and under all three; the figure to quote.
        audits: of each member by itself, whose faults the average may hide; empty in older records.
    """

    other: str
    other_sha256: str
    members: tuple[AttackResult, ...]
    oblivious: tuple[AttackResult, ...]
    adaptive: AttackResult
    every: Accuracy
    other_path: str = ""
    audits: tuple[Audit, ...] = ()
