"""What is known of an artifact before it is attacked: its outputs on the stored images, and its compiled files."""

from __future__ import annotations

import dataclasses
from typing import List, Tuple

import numpy as np

from robust_edge_runtimes.core.closeness import OUTLIERS, most_above, number_above, relative_errors
from robust_edge_runtimes.core.golden import MAX_TOLERANCE
from robust_edge_runtimes.core.manifest import Manifest
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.scoring import repeats
from robust_edge_runtimes.verdict.checks import SINGLE_IMAGES, not_the_artifact, not_the_checkpoint, output_checks
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.measurement import Parity, golden_logits, parity_between
from robust_edge_runtimes.verdict.prebuilt import prebuilt_checks
from robust_edge_runtimes.verdict.rescoring import fewer_calls
from robust_edge_runtimes.verdict.subject import Subject


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The figures and checks of an artifact that no attack is needed for.

    Attributes:
        manifest: of the bundle.
        runtime: what executes the artifact here.
        parity: of the logits on the stored images, with the tolerance of this verification.
        prebuilt: whether the bundle's compiled files were compiled from their source.
        claims: whether what the bundle says of itself is true; empty without a run.
        outputs: whether the outputs on the stored images are logits, the checkpoint's, and those of the export.
        remarks: notes for the reader of the verdict.
    """

    manifest: Manifest
    runtime: RuntimeInfo
    parity: Parity
    prebuilt: Tuple[Check, ...]
    claims: Tuple[Check, ...]
    outputs: Tuple[Check, ...]
    remarks: Tuple[str, ...]

    @property
    def checks(self) -> Tuple[Check, ...]:
        """All checks."""
        return (*self.prebuilt, *self.claims, *self.outputs)


def inspect_artifact(subject: Subject) -> Inspection:
    """Score the stored images and compare the compiled files; the claims of the bundle are not checked here."""
    logits = golden_logits(subject.model, subject.golden)
    prebuilt, unverified = _prebuilt(subject)
    return Inspection(
        manifest=subject.bundle.manifest,
        runtime=subject.model.info,
        parity=dataclasses.replace(parity_between(logits, subject.golden), tolerance=subject.tolerance),
        prebuilt=tuple(prebuilt),
        claims=(),
        outputs=tuple(_outputs(subject, logits)),
        remarks=(
            *unverified,
            *fewer_calls(subject.model),
            *_tolerance_remark(subject),
            *_outliers_remark(subject, logits),
        ),
    )


def _outputs(subject: Subject, logits: np.ndarray) -> List[Check]:
    """Check the outputs on the stored images; `logits` are those of the clean, then of the attacked ones."""
    golden, tolerance, precision = subject.golden, subject.tolerance, subject.precision
    expected, stored = np.concatenate([golden.clean_logits, golden.attacked_logits]), golden.artifact_logits
    own = (
        []
        if stored is None
        else [not_the_artifact(logits, stored, subject.artifact_tolerance, precision, exact=subject.exact)]
    )
    checks = output_checks(
        subject.score,
        golden.clean,
        golden.clean_logits,
        tolerance,
        precision,
        exact=subject.exact,
        singles=repeats(subject.model, SINGLE_IMAGES),
    )
    return [
        *checks,
        not_the_checkpoint("golden images", logits, expected, tolerance, OUTLIERS.get(precision, 0.0)),
        *own,
    ]


def _prebuilt(subject: Subject) -> Tuple[List[Check], List[str]]:
    """Checks of compiled files; without a run, a library that cannot be checked gives a remark instead of a flag."""
    checks = prebuilt_checks(subject.bundle, subject.model)
    if subject.reference is not None:
        return checks, []
    unknown = [check for check in checks if check.name == "library_unverified"]
    return [check for check in checks if check not in unknown], [flag.detail for flag in raised(unknown)]


def _outliers_remark(subject: Subject, logits: np.ndarray) -> List[str]:
    """Name the stored images that exceed the tolerance where as many are allowed to."""
    expected = np.concatenate([subject.golden.clean_logits, subject.golden.attacked_logits])
    above = number_above(relative_errors(logits, expected), subject.tolerance)
    most = most_above(len(logits), subject.precision)
    if not 0 < above <= most:
        return []
    return [
        f"on {above} of {len(logits)} stored images logits differ from the checkpoint's by more than the tolerance, as "
        f"{subject.precision} may on {most}"
    ]


def _tolerance_remark(subject: Subject) -> List[str]:
    if subject.measured_tolerance is not None:
        return []
    most = MAX_TOLERANCE[subject.precision]
    return [
        f"without the run the tolerance of logits, {subject.tolerance:.2g}, is what the bundle says, at most {most:g}"
    ]
