"""Square: a black-box attack by random search, which uses only logits.

Source: Andriushchenko et al. 2020, Algorithm 1 and the ℓ∞ sampling distribution, with its schedule for the side of
the squares. Figures for a table come from the reference implementation.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Optional, Tuple

import numpy as np

from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.scoring import Score, margins

DEFAULT_QUERIES = 500  # per image
FEW_QUERIES = 50  # per image, where the attack is one of several
HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: where the share of pixels halves


@dataclasses.dataclass(frozen=True)
class Square:
    """The Square attack in ℓ∞.

    Attributes:
        queries: largest number of queries per image.
        share: fraction of the pixels that the first square covers.
    """

    queries: int
    share: float = 0.8

    def spec(self, threat: Threat, seed: int) -> AttackSpec:
        """The record of the attack in a verdict."""
        return AttackSpec("square", threat.eps, self.queries, 0.0, seed)

    def perturb(
        self,
        score: Score,
        images: np.ndarray,
        labels: np.ndarray,
        threat: Threat,
        random: np.random.Generator,
        *,
        progress: Optional[Callable[[int, int], None]] = None,
    ) -> np.ndarray:
        """Compute one candidate per image: the one with the smallest margin.

        Args:
            score: the network as a function from images to logits.
            images: (N, C, H, W) float32 in [0, 1].
            labels: (N,) int64.
            threat: the ball; `linf`.
            random: the random generator.
            progress: called with (queries done, number of queries).

        Returns:
            (N, C, H, W) float32 in [0, 1], within ε of `images`.

        Raises:
            InputError: another norm.
        """
        if threat.norm != LINF:
            raise InputError(f"Square is defined in {LINF} only, not in {threat.norm}")
        low, high = _ball(images, threat.eps)
        stripes = _signs((len(images), images.shape[1], 1, images.shape[3]), random)
        best: np.ndarray = np.clip(images + np.float32(threat.eps) * stripes, low, high)
        lowest = margins(score(best), labels)
        for query in range(1, self.queries):
            if progress is not None:
                progress(query, self.queries)
            rows = np.flatnonzero(lowest >= 0)
            if not len(rows):
                break
            step = np.float32(2 * threat.eps) * _squares(best[rows].shape, self._side(query, images), random)
            candidate = np.clip(best[rows] + step, low[rows], high[rows])
            margin = margins(score(candidate), labels[rows])
            better = margin < lowest[rows]
            best[rows[better]], lowest[rows[better]] = candidate[better], margin[better]
        if progress is not None:
            progress(self.queries, self.queries)
        return best

    def _side(self, query: int, images: np.ndarray) -> int:
        """Side of the square in pixels at this query."""
        progress = query * 10_000 / self.queries
        share = self.share / 2 ** sum(progress > mark for mark in HALVINGS)
        height, width = images.shape[2:]
        return int(min(max(round((share * height * width) ** 0.5), 1), height, width))


def _squares(shape: Tuple[int, ...], side: int, random: np.random.Generator) -> np.ndarray:
    """(n, C, H, W): for each image and channel ±1 in one square, 0 elsewhere; multiplied by 2ε, later clipped to ±ε."""
    count, channels, height, width = shape
    tops = random.integers(0, height - side + 1, (count, 1))
    lefts = random.integers(0, width - side + 1, (count, 1))
    rows, columns = np.arange(height)[None], np.arange(width)[None]
    in_rows, in_columns = (rows >= tops) & (rows < tops + side), (columns >= lefts) & (columns < lefts + side)
    covered = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    squares: np.ndarray = _signs((count, channels, 1, 1), random) * covered
    return squares


def _signs(shape: Tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 2, shape).astype(np.float32) * 2 - 1


def _ball(images: np.ndarray, eps: float) -> Tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of every pixel: the ball, clipped to [0, 1]."""
    return np.maximum(images - np.float32(eps), 0), np.minimum(images + np.float32(eps), 1)
