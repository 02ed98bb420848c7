"""The images that `verify` attacks, drawn by a seed, preferably such that the bundle does not contain."""

from __future__ import annotations

import dataclasses
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.manifest import NO_IMAGES, Manifest

NOISE = 1 / 255
CHUNK = 500


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnImages:
    """Images to attack.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], the centres of the balls.
        clean: (N, C, H, W) float32 in [0, 1], on which clean accuracy is measured: the images themselves, or, if the
            bundle contains an image, a copy with noise of at most NOISE per pixel.
        labels: (N,) int64.
        ids: (N,) int64, as in Measurement.
    """

    images: np.ndarray
    clean: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def from_golden(golden: Golden, limit: Optional[int], seed: int, *, start: int = 0) -> DrawnImages:
    """Draw golden images, the only images that a device has; noise is added to each.

    Args:
        golden: the bundle's.
        limit: largest number of images; None for all.
        seed: for the order and the noise.
        start: number of images that earlier calls have returned; the following ones are returned.

    Raises:
        InputError: a limit below 1.
    """
    refuse_no_images(limit)
    random = np.random.default_rng(seed)
    ids = np.sort(random.permutation(len(golden.labels))[start:limit])
    images = golden.clean[ids]
    return DrawnImages(images, under_noise(images, random), golden.labels[ids], ids.astype(np.int64))


def from_test_images(
    floats: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    golden: Golden,
    limit: Optional[int],
    seed: int,
    *,
    start: int = 0,
) -> DrawnImages:
    """Draw test images in a random order, images that the bundle does not contain first.

    If there are too few of them, images that the bundle contains follow, with a noisy copy as the clean image.

    Args:
        floats: (n,) int64 positions to (n, C, H, W) float32 in [0, 1].
        labels: (N,) int64, of all test images.
        golden: the bundle's.
        limit: largest number of images; None for all.
        seed: for the order and the noise.
        start: number of images that earlier calls have returned; the following ones are returned.

    Raises:
        InputError: a limit below 1.
    """
    refuse_no_images(limit)
    random = np.random.default_rng(seed)
    wanted = len(labels) if limit is None else min(limit, len(labels))
    unseen, stored = _split_by_origin(floats, labels, random.permutation(len(labels)), golden, wanted)
    drawn = [(position, len(golden.labels) + position, False) for position in unseen]
    drawn += [(position, index, True) for position, index in stored]
    positions, ids, known = (np.array(column) for column in zip(*drawn[start:]))
    images = floats(positions)
    clean = images.copy()
    clean[known] = under_noise(images[known], np.random.default_rng((seed, start)))
    return DrawnImages(images, clean, labels[positions], ids.astype(np.int64))


def refuse_no_images(limit: Optional[int]) -> None:
    """Raise InputError for a limit below 1."""
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} images checks nothing; give at least 1")


def refuse_noise(manifest: Manifest) -> None:
    """Raise InputError for a bundle that was exported without images: there is no accuracy to lose."""
    if manifest.source.dataset == NO_IMAGES:
        raise InputError(
            f"the bundle was exported from {manifest.source.run} without images, so there is no accuracy to verify; "
            "import the file with images (robust-edge import) and export that run"
        )


def under_noise(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy with uniform noise of at most NOISE per pixel, clipped to [0, 1]."""
    noise = random.uniform(-NOISE, NOISE, images.shape).astype(np.float32)
    moved: np.ndarray = np.clip(images + noise, 0, 1)
    return moved


def stored_indices(golden: Golden) -> Dict[bytes, List[int]]:
    """From an image's bytes to its indices among the golden images; a test split may hold an image several times."""
    found: Dict[bytes, List[int]] = {}
    for index, image in enumerate(golden.clean):
        found.setdefault(image.tobytes(), []).append(index)
    return found


def _split_by_origin(
    floats: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, order: np.ndarray, golden: Golden, wanted: int
) -> Tuple[List[int], List[Tuple[int, int]]]:
    """Positions of images outside the bundle, and (position, number) of images inside it.

    The number is an index in the bundle that no other position has; for a further copy of a stored image, or one with
    another label, it is that of an image outside.
    """
    known = stored_indices(golden)
    unseen: List[int] = []
    stored: List[Tuple[int, int]] = []
    for start in range(0, len(order), CHUNK):
        chosen = order[start : start + CHUNK]
        for position, image in zip(chosen.tolist(), floats(chosen)):
            indices = known.get(image.tobytes())
            if indices is None:
                unseen.append(position)
                continue
            index = next((index for index in indices if golden.labels[index] == labels[position]), None)
            stored.append((position, len(golden.labels) + position if index is None else index))
            if index is not None:
                indices.remove(index)
        if len(unseen) >= wanted:
            break
    unseen = unseen[:wanted]
    return unseen, stored[: wanted - len(unseen)]
