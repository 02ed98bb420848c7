"""Images that no table inside an artifact can know."""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional

import numpy as np

from robust_edge_runtimes.core.bundle import Golden
from robust_edge_runtimes.core.errors import InputError

NOISE = 1 / 255


@dataclasses.dataclass(frozen=True, eq=False)
class Fresh:
    """Images to attack.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], the centres of the balls.
        probes: (N, C, H, W) float32 in [0, 1], on which clean accuracy is measured: the images themselves, or,
            where the bundle holds an image too, a copy under noise of at most NOISE per pixel.
        labels: (N,) int64.
        ids: (N,) int64, as in Trial.
    """

    images: np.ndarray
    probes: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def from_golden(golden: Golden, limit: Optional[int], seed: int) -> Fresh:
    """Golden images drawn by seed, each under fresh noise: all that a device has.

    Raises:
        InputError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} images checks nothing; give at least 1")
    random = np.random.default_rng(seed)
    ids = np.sort(random.permutation(len(golden.labels))[:limit])
    images = golden.clean[ids]
    return Fresh(images, under_noise(images, random), golden.labels[ids], ids.astype(np.int64))


def under_noise(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy with each pixel moved by at most NOISE, still in [0, 1]."""
    noise = random.uniform(-NOISE, NOISE, images.shape).astype(np.float32)
    moved: np.ndarray = np.clip(images + noise, 0, 1)
    return moved


def stored_index(golden: Golden) -> Dict[bytes, int]:
    """From an image's bytes to its number among the golden images."""
    return {image.tobytes(): index for index, image in enumerate(golden.clean)}
