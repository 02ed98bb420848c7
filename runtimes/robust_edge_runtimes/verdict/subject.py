"""What a verdict judges: an open bundle with its runtime and its images, created once and passed to every mode."""

from __future__ import annotations

import dataclasses
import functools
from typing import Callable, List, Optional, Tuple, TypeVar

import numpy as np

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import Score, repeats, score_of
from robust_edge_runtimes.verdict.checks import SINGLE_IMAGES, not_the_checkpoint, repeat_checks
from robust_edge_runtimes.verdict.flags import Check, Flag, raised
from robust_edge_runtimes.verdict.images import DrawnImages, from_golden, refuse_noise

Self = TypeVar("Self", bound="Subject")


@dataclasses.dataclass(frozen=True, eq=False)
class CleanAnswers:
    """On which drawn images each network is right before any attack.

    Attributes:
        artifact: (N,) bool.
        reference: (N,) bool, the same for the checkpoint.
        flags: raised if the artifact's logits depend on random numbers or on the rest of the batch.
    """

    artifact: np.ndarray
    reference: np.ndarray
    flags: Tuple[Flag, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """The artifact under test, and what it is compared with.

    Attributes:
        bundle: opened and checked.
        golden: the images that the bundle stores, with the checkpoint's logits.
        model: the artifact's open runtime.
        eps: ℓ∞ radius of every attack, in pixel units on [0, 1].
        draw: function from (start, stop) to these images of a random order, which the seed determines.
        available: number of images that can be drawn.
        total: the same without a limit; None if unknown.
        reference: the checkpoint as a function from images to logits; None if there are only its logits in the bundle.
        span: (start, stop) of the images that the modes attack, the arguments of `draw`.
        measured_tolerance: largest relative logit error of a faithful artifact, as the run's own arithmetic gives it;
            None without a run.
        measured_artifact_tolerance: largest relative difference between the artifact's logits on two machines, as
            the run's arithmetic and the kernels here give it; None without a run.
    """

    bundle: Bundle
    golden: Golden
    model: BaseRuntime
    eps: float
    draw: Callable[[int, int], DrawnImages]
    available: int
    reference: Optional[Score] = None
    span: Tuple[int, int] = (0, 1 << 62)
    measured_tolerance: Optional[float] = None
    measured_artifact_tolerance: Optional[float] = None
    total: Optional[int] = None

    def part(self: Self, start: int, stop: int) -> Self:
        """The same subject with a part of its images."""
        return dataclasses.replace(self, span=(start, stop))

    @property
    def tolerance(self) -> float:
        """Largest relative logit error that rounding explains.

        Without a run it is the bundle's tolerance, which `read_golden` limits to the precision's MAX_TOLERANCE.
        """
        return self.golden.tolerance if self.measured_tolerance is None else self.measured_tolerance

    @property
    def artifact_tolerance(self) -> float:
        """Largest relative difference from the artifact's stored logits that another machine's rounding explains.

        Without a run it is the bundle's, which is at most `golden.tolerance`.
        """
        known = (self.golden.artifact_tolerance, self.measured_artifact_tolerance)
        return min((value for value in known if value is not None), default=self.tolerance)

    @property
    def precision(self) -> str:
        """Of the artifact: `fp32`, `fp16` or `int8`."""
        return self.bundle.manifest.artifact.precision

    @property
    def exact(self) -> bool:
        """Whether the artifact computes the same integers in every batch and on every machine."""
        return self.model.exact

    @functools.cached_property
    def score(self) -> Score:
        """The artifact as a function from any number of images to logits."""
        return score_of(self.model)

    @functools.cached_property
    def images(self) -> DrawnImages:
        """The images that the modes attack.

        Raises:
            InputError: there are none.
        """
        drawn = self.draw(*self.span)
        if not len(drawn):
            raise InputError("there are no images to attack; give at least 1")
        return drawn

    @functools.cached_property
    def clean(self) -> CleanAnswers:
        """Classify the drawn images with both networks; without a run, the checkpoint's stored logits are used."""
        drawn = self.images
        logits = self.score(drawn.clean)
        if self.reference is None:
            right = self.stored_answers(drawn.ids)[0]
        else:
            right = is_right(self.reference(drawn.clean), drawn.labels)
        singles = repeats(self.model, SINGLE_IMAGES)
        flags = raised(
            repeat_checks(self.score, drawn.clean, logits, self.precision, exact=self.exact, singles=singles)
        )
        return CleanAnswers(is_right(logits, drawn.labels), right, tuple(flags))

    def compared(self, name: str, images: np.ndarray, logits: np.ndarray) -> List[Check]:
        """Compare the artifact's logits with the checkpoint's; no check without a run, or in 8 bits.

        Args:
            name: description of the images, for the detail of the check.
            images: (N, C, H, W) float32 in [0, 1].
            logits: (N, K), the artifact's.
        """
        if self.reference is None or self.precision == "int8":
            return []
        return [not_the_checkpoint(name, logits, self.reference(images), self.tolerance)]

    def stored_answers(self, ids: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Whether the checkpoint's stored logits are right: on clean images; and on both clean and attacked images."""
        golden, labels = self.golden, self.golden.labels[ids]
        clean = is_right(golden.clean_logits[ids], labels)
        return clean, clean & is_right(golden.attacked_logits[ids], labels)


def subject_of(bundle: Bundle, model: BaseRuntime, *, limit: Optional[int] = None, seed: int = 1) -> Subject:
    """The subject of a bundle without a run: its stored images are attacked, with the ε of the bundle.

    Args:
        bundle: opened.
        model: its open runtime.
        limit: largest number of images; None for all stored ones.
        seed: for the order of the images.

    Raises:
        BundleError: golden.npz contradicts the manifest.
        InputError: the stored images are noise.
    """
    refuse_noise(bundle.manifest)
    golden = bundle.golden()
    eps = bundle.manifest.expected.attack.eps
    return Subject(bundle, golden, model, eps, *golden_images(golden, limit, seed), total=len(golden.labels))


def golden_images(golden: Golden, limit: Optional[int], seed: int) -> Tuple[Callable[[int, int], DrawnImages], int]:
    """`draw` and `available` of a subject whose images are those that the bundle stores."""
    available = len(golden.labels) if limit is None else min(limit, len(golden.labels))
    return lambda start, stop: from_golden(golden, min(stop, available), seed, start=start), available
