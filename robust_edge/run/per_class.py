"""Accuracy class by class, which the accuracy over all images hides where classes have different numbers of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from robust_edge_runtimes.core.manifest import Sparsity

LEARNT_NOTHING = ", so that it has learnt nothing of use"
NOT_TRAINED = ", since the run has no epochs of training"
IMPORTED_WRONGLY = (
    "; it was imported, not trained here, so that the likely causes are: --mean and --std are not those of its "
    "training (for pixels in [0, 1]), the classes are not in the order of its logits (--classes), or it was trained on "
    "other images than these"
)


@dataclasses.dataclass(frozen=True)
class ClassAccuracy:
    """The results of the images of one class.

    Attributes:
        images: number of images, at least 1.
        clean: number that is right without an attack.
        robust: number that is right under the attack, too.
    """

    name: str
    images: int
    clean: int
    robust: int

    @property
    def clean_accuracy(self) -> float:
        """Fraction that is right without an attack."""
        return self.clean / self.images

    @property
    def robust_accuracy(self) -> float:
        """Fraction that is right under the attack, too."""
        return self.robust / self.images


def per_class(classes: Sequence[str], labels: Tensor, clean: Tensor, robust: Tensor) -> tuple[ClassAccuracy, ...]:
    """Count the right images of every class that has images.

    Args:
        classes: their names.
        labels: (N,) int64.
        clean: (N,) bool, whether an image is right without an attack.
        robust: (N,) bool, whether it is right under the attack, too.
    """
    counts = [(name, labels == label) for label, name in enumerate(classes)]
    return tuple(
        ClassAccuracy(name, int(own.sum()), int((clean & own).sum()), int((robust & own).sum()))
        for name, own in counts
        if own.any()
    )


def balanced_accuracy(rows: Sequence[ClassAccuracy]) -> tuple[float, float]:
    """Clean and robust accuracy, each the mean over the classes, whatever their numbers of images."""
    return (
        sum(row.clean_accuracy for row in rows) / len(rows),
        sum(row.robust_accuracy for row in rows) / len(rows),
    )


def lowest(rows: Sequence[ClassAccuracy]) -> ClassAccuracy:
    """The class with the lowest robust accuracy; of equal ones that with the lowest clean accuracy."""
    return min(rows, key=lambda row: (row.robust_accuracy, row.clean_accuracy))


def describe_classes(rows: Sequence[ClassAccuracy], *, attacked: bool = True) -> str:
    """Balanced accuracies and the lowest class in one line; only the clean ones where nothing was attacked."""
    clean, robust = balanced_accuracy(rows)
    worst = lowest(rows)
    text, least = f"balanced over {len(rows)} classes: clean {clean:.1%}", f"{worst.clean_accuracy:.1%}"
    if attacked:
        text, least = f"{text}, attacked {robust:.1%}", f"{least} and {worst.robust_accuracy:.1%}"
    if (worst.clean_accuracy, worst.robust_accuracy) == (clean, robust):  # all classes are equal
        return text
    return f"{text}; lowest in class {worst.name!r}: {least} of {worst.images} images"


def cause_of(*, imported: bool, epoch: int | None, sparsity: Sparsity) -> str:
    """Why a network may be no better than a constant answer, as the end of the warning.

    Args:
        imported: whether the run was written by `import`.
        epoch: the epoch of the weights; 0 if the run has not trained any, None if that is not known.
        sparsity: of its weights.
    """
    empty = [layer.name for layer in sparsity.layers if layer.nonzero == 0]
    if empty:
        return f"; {len(empty)} of its layers have zeros only, {empty[-1]} the last of them"
    if imported:
        return IMPORTED_WRONGLY
    return NOT_TRAINED if epoch == 0 else LEARNT_NOTHING


def no_better_than_constant(rows: Sequence[ClassAccuracy], cause: str = "") -> tuple[str, ...]:
    """A warning if the network is not better than the answer that is always the largest class; else nothing.

    Args:
        rows: of all classes.
        cause: the end of the warning (`cause_of`), if that is known.
    """
    largest, images = max(rows, key=lambda row: row.images), sum(row.images for row in rows)
    right = sum(row.clean for row in rows)
    if right > largest.images:
        return ()
    return (
        f"the network is right on {right} of {images} images ({right / images:.1%}); the answer {largest.name!r}, the "
        f"largest class, is right on {largest.images} ({largest.images / images:.1%}){cause}",
    )
