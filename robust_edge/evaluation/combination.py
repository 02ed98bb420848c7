"""The average of a benign and a robust network, under adaptive and oblivious attacks.

Source: Marshall 2020, Table C.1. An oblivious attack computes images on one member and evaluates the average on them,
as the thesis does. An adaptive attack knows of the average and uses its gradients.
"""

from __future__ import annotations

import dataclasses
import os

from robust_edge.evaluation.accuracy import Accuracy, accuracy
from robust_edge.evaluation.audit import Audit, audit_result
from robust_edge.evaluation.campaign import Progress, part_of
from robust_edge.evaluation.job import Job, Network
from robust_edge.evaluation.outcome import ROBUST, AttackResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
    """All rows of Table C.1 for one pair of networks and one attack.

    Attributes:
        other: name of the second run.
        other_sha256: hash of its weights.
        other_path: its path relative to the first run; empty in older records.
        members: the result of each network alone, attacked with its own gradients.
        oblivious: the results of the average on images made on the first and on the second member.
        adaptive: the result of the average, attacked with its own gradients.
        every: accuracy of the average on images that it classifies correctly when clean and under all three attacks.
        audits: the audit of each member alone, since the average may hide its problems; empty in older records.
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
    """Compute all rows of Table C.1 in five campaigns.

    Args:
        job: an evaluation of two runs, whose network is their average.
        audits: the audits of the two members.
        progress: called with (done, total).

    Returns:
        The rows, and the number of batches that an interrupted process had finished.
    """
    (run, other), names, (average,) = job.task.runs, job.task.names, job.networks
    members = [Network(name=name, model=model) for name, model in zip(names, job.task.models, strict=True)]
    transferred = job.attack.for_transfer()
    campaigns = [(job.attack, member, member) for member in members]
    campaigns += [(transferred, member, average) for member in members]
    campaigns += [(job.attack, average, average)]
    finished = [job.run(*each, part_of(progress, index, len(campaigns))) for index, each in enumerate(campaigns)]
    results = [result for result, _ in finished]
    own, oblivious, adaptive = results[:2], results[2:4], results[4]
    outcomes = zip(adaptive.outcomes, *(item.outcomes for item in oblivious), strict=True)
    robust = sum(all(outcome == ROBUST for outcome in row) for row in outcomes)
    combination = Combination(
        other=names[1],
        other_sha256=job.task.weights[1],
        other_path=os.path.relpath(other.path.resolve(), run.path.resolve()),
        members=tuple(own),
        oblivious=tuple(oblivious),
        adaptive=adaptive,
        every=accuracy(robust, len(job.task.split)),
        audits=tuple(
            audit.with_checks(audit_result(result, job.attack)) for audit, result in zip(audits, own, strict=True)
        ),
    )
    return combination, sum(resumed for _, resumed in finished)
