"""The images that `verify` attacks, drawn by a seed, preferably such that the bundle does not contain."""

from __future__ import annotations

import dataclasses
import hashlib
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


class ShuffledImages:
    """Test images in a random order, images that the bundle does not contain first.

    If there are too few of them, images that the bundle contains follow, with a noisy copy as the clean image. Every
    image is read once to find out whether it is stored, and again where it is drawn.

    Args:
        floats: (n,) int64 positions to (n, C, H, W) float32 in [0, 1].
        labels: (N,) int64, of all test images.
        golden: the bundle's.
        seed: for the order and the noise.
    """

    def __init__(
        self, floats: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, golden: Golden, seed: int
    ) -> None:
        self._floats, self._labels, self._stored_labels, self._seed = floats, labels, golden.labels, seed
        self._order = np.random.default_rng(seed).permutation(len(labels))
        self._known = stored_indices(golden)
        self._unseen: List[int] = []
        self._stored: List[Tuple[int, int]] = []
        self._read = 0

    def draw(self, start: int, stop: int) -> DrawnImages:
        """The images from number `start` of the order to `stop`, or to its end."""
        self._look_for(min(stop, len(self._labels)))
        count = len(self._stored_labels)
        drawn = [(position, count + position, False) for position in self._unseen[start:stop]]
        first, last = (max(number - len(self._unseen), 0) for number in (start, stop))
        drawn += [(position, index, True) for position, index in self._stored[first:last]]
        if not drawn:
            return DrawnImages(*(np.zeros(0, np.float32),) * 2, *(np.zeros(0, np.int64),) * 2)
        positions, ids, known = (np.array(column) for column in zip(*drawn))
        images = self._floats(positions)
        clean = images.copy()
        clean[known] = under_noise(images[known], np.random.default_rng((self._seed, start)))
        return DrawnImages(images, clean, self._labels[positions], ids.astype(np.int64))

    def _look_for(self, wanted: int) -> None:
        """Read on until there are `wanted` images outside the bundle, or to the end.

        A position of an image inside the bundle gets the number of its index there, which no other position has; for a
        further copy of a stored image, or one with another label, it is that of an image outside.
        """
        while len(self._unseen) < wanted and self._read < len(self._order):
            chosen = self._order[self._read : self._read + CHUNK]
            self._read += len(chosen)
            for position, image in zip(chosen.tolist(), self._floats(chosen)):
                indices = self._known.get(_digest(image))
                if indices is None:
                    self._unseen.append(position)
                    continue
                label = self._labels[position]
                index = next((index for index in indices if self._stored_labels[index] == label), None)
                self._stored.append((position, len(self._stored_labels) + position if index is None else index))
                if index is not None:
                    indices.remove(index)


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
    """From an image's digest to its indices among the golden images; a test split may hold an image several times."""
    found: Dict[bytes, List[int]] = {}
    for index, image in enumerate(golden.clean):
        found.setdefault(_digest(image), []).append(index)
    return found


def _digest(image: np.ndarray) -> bytes:
    """SHA-256 of an image, which takes less memory than its pixels."""
    return hashlib.sha256(image.tobytes()).digest()
