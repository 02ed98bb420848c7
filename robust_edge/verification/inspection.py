"""Inspect an artifact on the host: as on a device and, with a run, compare the claims of its bundle with the run."""

from __future__ import annotations

import dataclasses

from robust_edge.verification.claims import false_claims
from robust_edge.verification.kernels import kernel_notes
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.stored_attack import ProgressOf
from robust_edge.verification.subject import HostSubject
from robust_edge_runtimes.verdict.flags import Check
from robust_edge_runtimes.verdict.inspection import Inspection, inspect_artifact
from robust_edge_runtimes.verdict.measurement import Parity


def inspect_on_host(
    subject: HostSubject, settings: VerifySettings, progress: ProgressOf = lambda _: None
) -> Inspection:
    """Score the stored images, compare compiled files and claims, and note kernels of this CPU that were not used."""
    found = inspect_artifact(subject)
    notes = kernel_notes(subject.bundle, subject.model, subject.golden.attacked)
    claims = _claims(subject, settings, found.parity, progress)
    return dataclasses.replace(found, claims=tuple(claims), remarks=(*notes, *found.remarks))


def _claims(subject: HostSubject, settings: VerifySettings, parity: Parity, progress: ProgressOf) -> list[Check]:
    if subject.run is None:
        return []
    assert subject.network is not None
    assert subject.test is not None
    assert subject.training is not None
    assert subject.reference is not None
    return false_claims(
        subject.bundle,
        subject.golden,
        subject.run,
        subject.network,
        subject.reference,
        subject.test,
        subject.training,
        eps=subject.eps,
        seed=settings.seed,
        tolerance=subject.tolerance,
        artifact_tolerance=subject.measured_artifact_tolerance or subject.tolerance,
        parity=parity,
        progress=progress,
    )
