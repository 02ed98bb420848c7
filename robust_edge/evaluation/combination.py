"""A benign and a robust network averaged, attacked by someone who knows it and by someone who does not.

Source: Marshall 2020, Table C.1. The thesis attacks one member and shows the images to the average; that is
called oblivious here. An adversary who knows of the average follows its gradients: adaptive.
"""

from __future__ import annotations

import dataclasses
import os

from robust_edge.evaluation.accuracy import Accuracy, accuracy
from robust_edge.evaluation.audit import Audit, audit_result
from robust_edge.evaluation.campaign import Progress, part_of
from robust_edge.evaluation.job import Job, Network
from robust_edge.evaluation.outcome import HELD, AttackResult


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


def evaluate_average(job: Job, audits: tuple[Audit, ...], progress: Progress | None) -> tuple[Combination, int]:
    """Every row of Table C.1: five campaigns, one after another.

    Args:
        job: on two runs; its network is their average.
        audits: of the two members.
        progress: called with (done, total).

    Returns:
        The rows, and how many batches a killed process had done.
    """
    run, other = job.task.runs
    names = job.task.names
    members = [Network(name=name, model=model) for name, model in zip(names, job.task.models, strict=True)]
    shown = job.attack.for_transfer()
    turns = [(job.attack, member, member) for member in members]
    turns += [(shown, member, job.network) for member in members]
    turns += [(job.attack, job.network, job.network)]
    done = [job.run(*turn, part_of(progress, place, len(turns))) for place, turn in enumerate(turns)]
    results = [result for result, _ in done]
    own, oblivious, adaptive = results[:2], results[2:4], results[4]
    outcomes = zip(adaptive.outcomes, *(item.outcomes for item in oblivious), strict=True)
    held = sum(all(outcome == HELD for outcome in row) for row in outcomes)
    combination = Combination(
        other=names[1],
        other_sha256=job.task.weights[1],
        other_path=os.path.relpath(other.path.resolve(), run.path.resolve()),
        members=tuple(own),
        oblivious=tuple(oblivious),
        adaptive=adaptive,
        every=accuracy(held, len(job.task.split)),
        audits=tuple(
            audit.with_checks(audit_result(result, job.attack)) for audit, result in zip(audits, own, strict=True)
        ),
    )
    return combination, sum(resumed for _, resumed in done)
