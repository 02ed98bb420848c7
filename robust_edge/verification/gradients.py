"""Whether a twin's gradient is the slope of the artifact that it stands for.

A graph of honest operators can be flat almost everywhere in torch and still fall where an attack steps, and TorchScript
can ask whether gradients are recorded. Finite differences of the artifact itself tell.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from robust_edge.attacks.modes import evaluation_mode, only_input_gradients
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.subject import HostSubject
from robust_edge_runtimes.scoring import Score, relative_error
from robust_edge_runtimes.verdict.flags import TWIN_GRADIENT_DIFFERS, Check

POINTS = 16
DIRECTIONS = 6  # random ones, beside the gradients' own
SCALES = (1.0, 1 / 4, 1 / 16)  # of eps
ALIGNED = 0.5  # smallest mean cosine between the changes that the gradient promises and those of the artifact
NOTICEABLE = {"fp32": 1e-3, "fp16": 5e-3, "int8": 1e-2}  # change of a margin, relative to the largest logit
RECORDED = 1e-3  # relative error of logits with and without gradients


def gradient_checks(subject: HostSubject, network: nn.Module, seed: int) -> list[Check]:
    """Compare a twin's slopes with the artifact's, and its logits with gradients recorded and without.

    At some images, and at random points around others, the margin between the two largest logits is followed along
    random sign directions, the sign of the twin's gradient and that of the checkpoint's. The change that the twin's
    gradient promises must agree with the artifact's own central differences at every scale.

    Args:
        subject: the artifact and its images.
        network: the twin.
        seed: of points and directions.
    """
    random = np.random.default_rng((seed, *subject.images.ids[:1]))
    drawn, eps = subject.images, subject.eps
    rows = random.permutation(len(drawn))[:POINTS]
    images = drawn.images[rows].copy()
    images[1::2] += random.uniform(-eps, eps, images[1::2].shape).astype(np.float32)
    images = np.clip(images, 0, 1)
    logits, largest = _compared_logits(subject.score, images)
    slopes = _slopes(network, images, logits)
    directions = [random_signs(images.shape, random) for _ in range(DIRECTIONS)]
    directions.append(np.sign(slopes))
    if subject.checkpoint is not None:
        directions.append(np.sign(subject.checkpoint.logits_and_gradient(images, drawn.labels[rows])[1]))
    return [
        _recorded(network, images, drawn.labels[rows]),
        _aligned(subject, images, logits, slopes, directions, largest),
    ]


def random_signs(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """float32 of -1 and 1."""
    return (2 * random.integers(0, 2, shape) - 1).astype(np.float32)


def _compared_logits(score: Score, images: np.ndarray) -> tuple[np.ndarray, float]:
    """(N, K): 1 for the largest logit, -1 for the second, which weigh a margin; and the largest absolute logit."""
    logits = np.nan_to_num(score(images))
    rows, order = np.arange(len(images)), logits.argsort(axis=1)
    weights = np.zeros_like(logits)
    weights[rows, order[:, -1]], weights[rows, order[:, -2]] = 1, -1
    return weights, float(np.abs(logits).max())


def _slopes(network: nn.Module, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, C, H, W): the network's gradient of each image's margin."""
    points = torch.from_numpy(images).requires_grad_(True)
    with only_input_gradients(network), evaluation_mode(network):
        margin = (network(points) * torch.from_numpy(weights)).sum()
        if not margin.requires_grad:
            return np.zeros_like(images)
        (gradient,) = torch.autograd.grad(margin, points, allow_unused=True)
    return np.zeros_like(images) if gradient is None else np.asarray(np.nan_to_num(gradient.numpy()))


def _recorded(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> Check:
    oracle = TorchOracle(network)
    error = relative_error(oracle.logits_and_gradient(images, labels)[0], oracle.logits(images))
    detail = f"with gradients recorded and without, the twin's logits differ by {error:.2g} (relative)"
    return Check(TWIN_GRADIENT_DIFFERS, not error <= RECORDED, detail)


def _aligned(
    subject: HostSubject,
    images: np.ndarray,
    weights: np.ndarray,
    slopes: np.ndarray,
    directions: list[np.ndarray],
    largest: float,
) -> Check:
    """The scale at which the twin's gradient says least about the artifact."""
    found = []
    for scale in SCALES:
        promised, measured = [], []
        for direction in directions:
            step = np.float32(scale * subject.eps) * direction
            high, low = np.clip(images + step, 0, 1), np.clip(images - step, 0, 1)
            promised.append((slopes * (high - low)).sum(axis=(1, 2, 3)))
            measured.append(((subject.score(high) - subject.score(low)) * weights).sum(axis=1))
        cosine = _mean_cosine(np.array(promised), np.array(measured), NOTICEABLE[subject.precision] * largest)
        found.append((cosine, scale))
    cosine, scale = min(found)
    detail = (
        f"at steps of {scale:g} eps the twin's gradient and finite differences of the artifact have a cosine of "
        f"{cosine:.2f}, at least {ALIGNED:g} is expected: the gradient does not lead where the artifact falls"
    )
    return Check(TWIN_GRADIENT_DIFFERS, not cosine >= ALIGNED, detail)


def _mean_cosine(promised: np.ndarray, measured: np.ndarray, noticeable: float) -> float:
    """Mean over the points of the cosine between two sets of changes.

    Args:
        promised: (D, N), along D directions.
        measured: (D, N).
        noticeable: points where the artifact changes less, on average, are left out; 1 where few points are left.
    """
    norms = np.linalg.norm(promised, axis=0), np.linalg.norm(measured, axis=0)
    moved = norms[1] > noticeable * len(measured) ** 0.5
    if moved.sum() < POINTS // 4:
        return 1.0
    cosine = (promised * measured).sum(axis=0)[moved] / np.maximum(norms[0] * norms[1], 1e-30)[moved]
    return float(cosine.mean())
