"""Geometry of a threat's ball on torch tensors: lengths, projections, random starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robust_edge_runtimes.attacks.threat import LINF, Threat

TOLERANCE = 1e-6  # in pixel units: float32 rounding by which a candidate may lie outside the ball


def lengths(difference: Tensor, norm: str) -> Tensor:
    """(N,) norms of the images of an (N, C, H, W) difference."""
    flat = difference.flatten(1)
    return flat.abs().amax(1) if norm == LINF else flat.norm(dim=1)


def project(points: Tensor, centre: Tensor, threat: Threat) -> Tensor:
    """Project points into the ball around `centre`, then clamp to [0, 1], which keeps them in the ball."""
    if threat.norm == LINF:
        return torch.minimum(torch.maximum(points, centre - threat.eps), centre + threat.eps).clamp(0, 1)
    difference = points - centre
    factor = (threat.eps / lengths(difference, threat.norm).clamp_min(1e-12)).clamp_max(1)
    return (centre + difference * _per_image(factor)).clamp(0, 1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The direction of unit length in which the loss increases fastest to first order."""
    return gradient.sign() if norm == LINF else gradient / _per_image(lengths(gradient, norm).clamp_min(1e-12))


def start_points(images: Tensor, threat: Threat, seed: int, positions: Sequence[int], restart: int) -> Tensor:
    """A random point in the ball of each image; it depends on the image's position, not on the batch.

    Args:
        images: (N, C, H, W) in [0, 1].
        threat: the ball.
        seed: of the evaluation.
        positions: indices of the images in the test split.
        restart: number of the restart, from 0; every restart has other start points.
    """
    noise = torch.stack([_noise(images.shape[1:], threat.norm, seed, position, restart) for position in positions])
    return project(images + threat.eps * noise.to(images), images, threat)


def confine(points: Tensor, centre: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """Project candidates that lie outside the ball or the pixel range back into both.

    Returns:
        The candidates, and (N,) bool: which of them lay outside.
    """
    allowed = project(points, centre, threat)
    outside = (points - allowed).flatten(1).abs().amax(1) > TOLERANCE
    outside |= ~points.flatten(1).isfinite().all(1)
    allowed = torch.where(_per_image(outside), torch.where(allowed.isfinite(), allowed, centre), points)
    return allowed.clamp(0, 1), outside


def _noise(shape: Sequence[int], norm: str, seed: int, position: int, restart: int) -> Tensor:
    mixed = (seed * 1_000_003 + position) * 1_009 + restart
    generator = torch.Generator().manual_seed(mixed % 2**63)
    if norm == LINF:
        return torch.rand(tuple(shape), generator=generator) * 2 - 1
    direction = torch.randn(tuple(shape), generator=generator)
    reach = torch.rand((), generator=generator) ** (1 / direction.numel())  # uniform in the ball
    length: Tensor = direction.norm().clamp_min(1e-12)
    return direction / length * reach


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
