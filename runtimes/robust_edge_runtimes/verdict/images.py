"""The images that an attack starts from: drawn by a seed, and none that a table inside an artifact can know."""

from __future__ import annotations

import dataclasses
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden

NOISE = 1 / 255
CHUNK = 500


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnImages:
    """Images to attack.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], the centres of the balls.
        clean: (N, C, H, W) float32 in [0, 1], on which clean accuracy is measured: the images themselves, or, where
            the bundle holds an image too, a copy under noise of at most NOISE per pixel.
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
    """Golden images drawn by seed, each under noise of its own: all that a device has.

    Args:
        golden: the bundle's.
        limit: at most so many; None takes all.
        seed: of the draw and of the noise.
        start: how many of these an earlier call has drawn; the others are returned.

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
    """Test images in an order of the seed's, those first that the bundle does not hold.

    Where there are no others, images that the bundle holds fill up, with a copy under noise as the clean image.

    Args:
        floats: (n,) int64 positions to (n, C, H, W) float32 in [0, 1].
        labels: (N,) int64, of all test images.
        golden: the bundle's.
        limit: at most so many; None takes all.
        seed: of the draw and of the noise.
        start: how many of these an earlier call has drawn; the others are returned.

    Raises:
        InputError: a limit below 1.
    """
    refuse_no_images(limit)
    random = np.random.default_rng(seed)
    wanted = len(labels) if limit is None else min(limit, len(labels))
    unseen, stored = _parted(floats, random.permutation(len(labels)), stored_index(golden), wanted)
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


def under_noise(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy with each pixel moved by at most NOISE, still in [0, 1]."""
    noise = random.uniform(-NOISE, NOISE, images.shape).astype(np.float32)
    moved: np.ndarray = np.clip(images + noise, 0, 1)
    return moved


def stored_index(golden: Golden) -> Dict[bytes, int]:
    """From an image's bytes to its number among the golden images."""
    return {image.tobytes(): index for index, image in enumerate(golden.clean)}


def _parted(
    floats: Callable[[np.ndarray], np.ndarray], order: np.ndarray, known: Dict[bytes, int], wanted: int
) -> Tuple[List[int], List[Tuple[int, int]]]:
    """Positions that the bundle does not hold, and (position, index in the bundle) of those that it holds."""
    unseen: List[int] = []
    stored: List[Tuple[int, int]] = []
    for start in range(0, len(order), CHUNK):
        chosen = order[start : start + CHUNK]
        for position, image in zip(chosen.tolist(), floats(chosen)):
            index = known.get(image.tobytes())
            if index is None:
                unseen.append(position)
            else:
                stored.append((position, index))
        if len(unseen) >= wanted:
            break
    unseen = unseen[:wanted]
    return unseen, stored[: wanted - len(unseen)]
