"""The measurements of a mode, image by image, and the accuracies and drops computed from them."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Optional, Sequence, Tuple

import numpy as np

from robust_edge_runtimes.core.decode import bounded
from robust_edge_runtimes.core.errors import InputError, unknown_name
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import agreement, relative_error, score_of
from robust_edge_runtimes.verdict.checks import more_robust_than_parent
from robust_edge_runtimes.verdict.flags import FLAGS, Flag, raised
from robust_edge_runtimes.verdict.statistic import ERROR, Drop, paired_drop

STORED, GRADIENTS, LOGITS = "stored images", "gradients", "logits"
"""What an attack uses: images made at export, gradients, or only the artifact's logits."""

LISTED = 3  # differences in the detail of a flag
OTHER_VERSIONS = (
    "; the versions are what the bundle claims: export again with those here, which shows if they explain it"
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """Percentage points that the artifact may lose, and the flags that it may raise."""

    clean: float = 1.0
    robust: float = 1.0
    allowed_flags: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("clean", "robust"):
            value = getattr(self, name)
            if not 0 <= value <= 100:
                raise InputError(f"budget.{name} must be 0 to 100 percentage points; it is {value}")
        for flag in self.allowed_flags:
            if flag not in FLAGS:
                raise unknown_name("flag", flag, FLAGS)


@dataclasses.dataclass(frozen=True)
class Parity:
    """Difference between the artifact's and the checkpoint's logits on the golden images; a diagnostic."""

    max_logit_error: float
    tolerance: float
    argmax_agreement: float


@dataclasses.dataclass(frozen=True)
class Twin:
    """The twin of an artifact that gave the gradients, and how far it agrees with the artifact.

    Attributes:
        made_from: the artifact's own graph, or what replaced it.
        max_logit_error: largest relative error on clean and attacked images.
        tolerance: largest error that rounding explains.
        argmax_agreement: fraction of these images with the same predicted class; in 8 bits of the surest half of them,
            except where both compute the same integers.
        temperature: divisor of the logits in the loss.
    """

    made_from: str
    max_logit_error: float
    tolerance: float
    argmax_agreement: float
    temperature: float


@dataclasses.dataclass(frozen=True)
class Rebuild:
    """Whether a bundle's files are those that its run exports again. Every line has at most MAX_LINE characters.

    Attributes:
        equal: whether no file differs, so that the artifact computes what a new export of the run computes.
        differences: the places that differ, one line each.
        compared: names of the files.
        seconds: duration of the export and the comparison.
        versions: packages of the export whose version on this machine is not the recorded one, one line each.
        notes: on unusual choices of the export.
    """

    equal: bool
    differences: Tuple[str, ...]
    compared: Tuple[str, ...]
    seconds: float
    versions: Tuple[str, ...] = ()
    notes: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("differences", "versions", "notes"):
            object.__setattr__(self, name, tuple(map(bounded, getattr(self, name))))

    @property
    def flags(self) -> Tuple[Flag, ...]:
        """A flag that lists the first differences, and what to do about other versions; none without differences."""
        if self.equal:
            return ()
        more = len(self.differences) - LISTED
        detail = "; ".join(self.differences[:LISTED]) + (f"; and {more} more" if more > 0 else "")
        return (Flag("rebuild_differs", detail + self.other_versions + (OTHER_VERSIONS if self.versions else "")),)

    @property
    def other_versions(self) -> str:
        """The versions that differ, in parentheses behind a difference; empty if none do."""
        return f" (exported with other versions: {', '.join(self.versions)})" if self.versions else ""


@dataclasses.dataclass(frozen=True)
class ModeResult:
    """One mode of attack: accuracies in [0, 1] of both networks on the same images and candidates.

    Attributes:
        paired: whether both networks scored the same candidates; otherwise the checkpoint's figures are those under
            the stored attack of the export.
        twin: the twin that gave the gradients, if any.
        seconds: duration of the mode.
        works_with: STORED, GRADIENTS or LOGITS.
        available: number of images that the mode could attack without a limit; None in verdicts of earlier releases.
    """

    mode: str
    attack: AttackSpec
    images: int
    reference_clean: float
    artifact_clean: float
    reference_robust: float
    artifact_robust: float
    clean_drop: Drop
    robust_drop: Drop
    flags: Tuple[Flag, ...] = ()
    paired: bool = True
    twin: Optional[Twin] = None
    seconds: float = 0.0
    works_with: str = GRADIENTS
    available: Optional[int] = None

    @property
    def counts_queries(self) -> bool:
        """Whether the attack's `steps` are queries, because it sees only logits."""
        return self.works_with == LOGITS


@dataclasses.dataclass(frozen=True)
class WorstCase:
    """All modes together: a network counts as right on an image only if it was right in every mode.

    Attributes:
        available: number of images that the modes could attack without a limit; None in verdicts of earlier releases.
    """

    modes: Tuple[str, ...]
    images: int
    reference_clean: float
    artifact_clean: float
    reference_robust: float
    artifact_robust: float
    clean_drop: Drop
    robust_drop: Drop
    available: Optional[int] = None


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """The worst points that an attack found, one per image and attacked network.

    Attributes:
        labels: (N,) int64.
        images: each (N, C, H, W) float32 in [0, 1], in the order of the labels.
    """

    labels: np.ndarray
    images: Tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """The result of one mode, image by image.

    Attributes:
        attack: the attack and its settings.
        ids: (N,) int64, identifies the images: equal numbers are the same image in all measurements of a bundle.
            Golden images have the numbers in which they are stored; other images have larger numbers.
        reference_clean: (N,) bool, the checkpoint was right on the clean image.
        artifact_clean: the same for the artifact.
        reference_robust: (N,) bool, the checkpoint was right on the clean image and on every candidate.
        artifact_robust: the same for the artifact.
        works_with: STORED, GRADIENTS or LOGITS.
        flags, paired, twin, seconds: as in ModeResult.
        candidates: the worst points found, in the order of `ids`; None once they have been scored again.
        mode: name of the mode, set by `Mode.measure`.
        labels: (N,) int64 true classes, set by `Mode.measure`.
        available: number of images that the mode could attack without a limit, set by `Mode.measure`.
    """

    attack: AttackSpec
    ids: np.ndarray
    reference_clean: np.ndarray
    artifact_clean: np.ndarray
    reference_robust: np.ndarray
    artifact_robust: np.ndarray
    works_with: str
    flags: Tuple[Flag, ...] = ()
    paired: bool = True
    twin: Optional[Twin] = None
    seconds: float = 0.0
    candidates: Optional[Candidates] = None
    mode: str = ""
    labels: Optional[np.ndarray] = None
    available: Optional[int] = None

    def result(self, budget: Budget, level: float = ERROR) -> ModeResult:
        """The mode's accuracies and drops, with intervals of the one-sided error `level`."""
        robust = paired_drop(self.reference_robust, self.artifact_robust, budget.robust, level)
        flags = self.flags
        # stored images were made against the checkpoint: an artifact that rounds differently is right on more of them
        if self.paired and self.works_with != STORED:
            flags = (*flags, *raised([more_robust_than_parent(robust, self.mode)]))
        return ModeResult(
            mode=self.mode,
            attack=self.attack,
            images=len(self.ids),
            reference_clean=float(self.reference_clean.mean()),
            artifact_clean=float(self.artifact_clean.mean()),
            reference_robust=float(self.reference_robust.mean()),
            artifact_robust=float(self.artifact_robust.mean()),
            clean_drop=paired_drop(self.reference_clean, self.artifact_clean, budget.clean, level),
            robust_drop=robust,
            flags=flags,
            paired=self.paired,
            twin=self.twin,
            seconds=self.seconds,
            works_with=self.works_with,
            available=self.available,
        )

    def joined(self, later: Measurement) -> Measurement:
        """Append the result of the same mode on further images."""
        twins = [item.twin for item in (self, later) if item.twin is not None]
        labels = [item.labels for item in (self, later) if item.labels is not None]
        return dataclasses.replace(
            self,
            ids=np.concatenate([self.ids, later.ids]),
            reference_clean=np.concatenate([self.reference_clean, later.reference_clean]),
            artifact_clean=np.concatenate([self.artifact_clean, later.artifact_clean]),
            reference_robust=np.concatenate([self.reference_robust, later.reference_robust]),
            artifact_robust=np.concatenate([self.artifact_robust, later.artifact_robust]),
            flags=(*self.flags, *later.flags),
            twin=max(twins, key=lambda twin: twin.max_logit_error, default=None),
            seconds=self.seconds + later.seconds,
            labels=np.concatenate(labels) if len(labels) == 2 else None,
        )


def worst_case(measurements: Sequence[Measurement], budget: Budget, level: float = ERROR) -> Optional[WorstCase]:
    """Combine all paired measurements image by image.

    The images are those that all modes attacked. If `replay` used other images, they are those that all other modes
    attacked; results of `replay` are added for the images among them that are stored.

    Returns:
        None if there is only one paired measurement, or no common image.
    """
    paired = [item for item in measurements if item.paired]
    if len(paired) < 2:
        return None
    common = judged_ids(paired)
    if not len(common):
        return None
    columns = ("reference_clean", "artifact_clean", "reference_robust", "artifact_robust")
    reference_clean, artifact_clean, reference_robust, artifact_robust = (
        right_in_all(paired, common, name) for name in columns
    )
    return WorstCase(
        modes=tuple(item.mode for item in paired),
        images=len(common),
        reference_clean=float(reference_clean.mean()),
        artifact_clean=float(artifact_clean.mean()),
        reference_robust=float(reference_robust.mean()),
        artifact_robust=float(artifact_robust.mean()),
        clean_drop=paired_drop(reference_clean, artifact_clean, budget.clean, level),
        robust_drop=paired_drop(reference_robust, artifact_robust, budget.robust, level),
        available=min((item.available for item in drawing(paired) if item.available is not None), default=None),
    )


def common_ids(measurements: Sequence[Measurement]) -> np.ndarray:
    """(n,) int64: the images that are in every measurement, of which there is at least one."""
    found: np.ndarray = functools.reduce(np.intersect1d, [item.ids for item in measurements])
    return found


def judged_ids(paired: Sequence[Measurement]) -> np.ndarray:
    """(n,) int64: the images that all modes attacked; stored images only where no other mode was run."""
    return common_ids(drawing(paired))


def drawing(paired: Sequence[Measurement]) -> Sequence[Measurement]:
    """The measurements on drawn images; all, where only stored images were used."""
    return [item for item in paired if item.works_with != STORED] or paired


def right_in_all(measurements: Sequence[Measurement], ids: np.ndarray, name: str) -> np.ndarray:
    """(len(ids),) bool: whether the column `name` is true in every measurement that contains the image."""
    right = np.ones(len(ids), bool)
    for item in measurements:
        _, here, there = np.intersect1d(ids, item.ids, return_indices=True)
        right[here] &= getattr(item, name)[there]
    return right


def parity_of(model: BaseRuntime, golden: Golden) -> Parity:
    """Compare an artifact's logits with the checkpoint's on the clean and the attacked golden images."""
    return parity_between(golden_logits(model, golden), golden)


def golden_logits(model: BaseRuntime, golden: Golden) -> np.ndarray:
    """(2N, K): the artifact's logits on the clean, then on the attacked golden images."""
    score = score_of(model)
    return np.concatenate([score(golden.clean), score(golden.attacked)])


def parity_between(logits: np.ndarray, golden: Golden) -> Parity:
    """Compare `golden_logits` with those that are stored."""
    expected = np.concatenate([golden.clean_logits, golden.attacked_logits])
    error = relative_error(logits, expected)
    return Parity(error if math.isfinite(error) else 1e308, golden.tolerance, agreement(logits, expected))
