"""Square: a random search that sees logits only.

Source: Andriushchenko et al. 2020, Algorithm 1 and the ℓ∞ sampling distribution, with its schedule for the side of
the squares. Used to audit evaluations; figures for a table come from the reference implementation.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge.attacks.carlini_wagner import margins
from robust_edge.attacks.pgd import evaluation_mode

HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: where the share of pixels halves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
    """The attack's settings.

    Attributes:
        eps: ℓ∞ radius in pixel units on [0, 1].
        queries: most looks at the network per image.
        share: fraction of the pixels that the first square covers.
    """

    eps: float
    queries: int
    share: float = 0.8


def square_attack(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Square, generator: torch.Generator
) -> Tensor:
    """One candidate per image: the one with the smallest margin that was found.

    Args:
        model: raw pixels to logits; used in evaluation mode, never differentiated.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        attack: the settings.
        generator: of the CPU.
    """
    with torch.no_grad(), evaluation_mode(model):
        stripes = _signs((len(images), images.shape[1], 1, images.shape[3]), generator).to(images)
        best = _inside(images + attack.eps * stripes, images, attack.eps)
        lowest = margins(model(best), labels)
        for query in range(1, attack.queries):
            rows = (lowest > 0).nonzero().squeeze(1)
            if not len(rows):
                break
            moved = _with_squares(best[rows], _side(attack, query, images), attack.eps, generator)
            candidate = _inside(moved, images[rows], attack.eps)
            margin = margins(model(candidate), labels[rows])
            better = margin < lowest[rows]
            best[rows[better]], lowest[rows[better]] = candidate[better], margin[better]
    return best


def _with_squares(points: Tensor, side: int, eps: float, generator: torch.Generator) -> Tensor:
    """Each image moved by ±2ε on a square of its own; the ball cuts it back to ±ε around the clean image."""
    count, channels, height, width = points.shape
    tops = torch.randint(0, height - side + 1, (count,), generator=generator)
    lefts = torch.randint(0, width - side + 1, (count,), generator=generator)
    signs = _signs((count, channels), generator).to(points)
    rows, columns = torch.arange(height)[None, :], torch.arange(width)[None, :]
    in_rows = (rows >= tops[:, None]) & (rows < tops[:, None] + side)
    in_columns = (columns >= lefts[:, None]) & (columns < lefts[:, None] + side)
    covered = (in_rows[:, :, None] & in_columns[:, None, :]).to(points.device)
    return points + 2 * eps * signs[:, :, None, None] * covered[:, None]


def _side(attack: Square, query: int, images: Tensor) -> int:
    progress = query * 10_000 / attack.queries
    share = attack.share / 2 ** sum(progress > mark for mark in HALVINGS)
    height, width = images.shape[2:]
    return int(min(max(round((share * height * width) ** 0.5), 1), height, width))


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator) * 2 - 1


def _inside(points: Tensor, images: Tensor, eps: float) -> Tensor:
    return torch.minimum(torch.maximum(points, images - eps), images + eps).clamp(0, 1)
