"""Check that a twin's gradients agree with finite differences of its artifact.

A twin can compute the artifact's logits and still have useless gradients: rounding to many flat steps has a zero
gradient almost everywhere although its output changes over the length of an attack's step, and TorchScript can compute
something else while gradients are recorded. An attack with such gradients overestimates the artifact's robustness.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from robust_edge.attacks.input_gradients import only_input_gradients
from robust_edge.evaluation.batch_size import batch_size
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.eight_bits import score_in_8_bits
from robust_edge.verification.subject import HostSubject
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.batches import batches_of
from robust_edge_runtimes.core.closeness import logit_scale
from robust_edge_runtimes.scoring import Score, relative_error
from robust_edge_runtimes.verdict.flags import GRADIENT_UNTESTED, TWIN_GRADIENT_DIFFERS, Check

POINTS = 16
DIRECTIONS = 6  # random directions, besides those of the gradients
SCALES = (1.0, 1 / 4, 1 / 16)  # of eps
MIN_COSINE = 0.5  # smallest mean cosine between the changes that the gradient predicts and those of the artifact
NOTICEABLE = {"fp32": 1e-3, "fp16": 5e-3, "int8": 1e-2}  # change of a margin, relative to `logit_scale`
FINER = (1 / 64, 1 / 256)  # of eps, in fp32 only: there rounding hides such small changes least
OF_CHECKPOINT = 0.7  # smallest share of the checkpoint's own cosine, where that is small
ROUGH = 0.2  # cosine below which the checkpoint's own gradient predicts nothing at a scale
STILL = 2.0  # no cosine: too few points change noticeably
UNDECIDED = -1.0  # the cosine that is expected there: any is taken
RECORDING_TOLERANCE = 1e-3  # relative error of logits with and without gradients


def gradient_checks(subject: HostSubject, network: nn.Module, seed: int) -> list[Check]:
    """Compare a twin's gradients with finite differences, and its logits with and without recording of gradients.

    The points are some images, and random points around others. The function is the margin between the two largest
    logits; the directions are random signs, the sign of the twin's gradient and that of the checkpoint's. The change
    that the twin's gradient predicts must agree with the artifact's central differences at every scale.

    Args:
        subject: the artifact and its images.
        network: the twin.
        seed: for points and directions.
    """
    random = np.random.default_rng((seed, *subject.images.ids[:1]))
    drawn, eps = subject.images, subject.eps
    rows = random.permutation(len(drawn))[:POINTS]
    images = drawn.images[rows].copy()
    images[1::2] += random.uniform(-eps, eps, images[1::2].shape).astype(np.float32)
    images = np.clip(images, 0, 1)
    logits = np.nan_to_num(subject.score(images))
    weights, largest = _margin_weights(logits), logit_scale(logits)
    if subject.reference is not None:
        largest = min(largest, logit_scale(subject.reference(images)))
    slopes = _slopes(network, images, weights)
    directions = [random_signs(images.shape, random) for _ in range(DIRECTIONS)]
    directions.append(np.sign(slopes))
    if subject.checkpoint is not None:
        directions.append(np.sign(subject.checkpoint.logits_and_gradient(images, drawn.labels[rows])[1]))
    points = _Points(images, weights, directions, eps, NOTICEABLE[subject.precision] * largest)
    return [_recording_check(network, images, drawn.labels[rows]), _alignment_check(subject, points, slopes)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Points:
    """Where gradients are compared with finite differences.

    Attributes:
        images: (N, C, H, W).
        weights: (N, K) of each image's margin.
        directions: (N, C, H, W) each, of signs.
        eps: step of scale 1.
        noticeable: smallest mean change of a margin that counts.
    """

    images: np.ndarray
    weights: np.ndarray
    directions: list[np.ndarray]
    eps: float
    noticeable: float

    def cosine(self, score: Score, slopes: np.ndarray, scale: float) -> float:
        """Mean cosine between the changes of the margins that `slopes` predict, and those of a network's logits."""
        predicted, measured = [], []
        for direction in self.directions:
            step = np.float32(scale * self.eps) * direction
            high, low = np.clip(self.images + step, 0, 1), np.clip(self.images - step, 0, 1)
            predicted.append((slopes * (high - low)).sum(axis=(1, 2, 3)))
            measured.append(((score(high) - score(low)) * self.weights).sum(axis=1))
        return _mean_cosine(np.array(predicted), np.array(measured), self.noticeable)


def random_signs(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A float32 array of random signs, -1 or 1."""
    return (2 * random.integers(0, 2, shape) - 1).astype(np.float32)


def _margin_weights(logits: np.ndarray) -> np.ndarray:
    """Weights (N, K) of a margin, 1 for the largest logit and -1 for the second."""
    rows, order = np.arange(len(logits)), logits.argsort(axis=1)
    weights = np.zeros_like(logits)
    weights[rows, order[:, -1]], weights[rows, order[:, -2]] = 1, -1
    return weights


def _slopes(network: nn.Module, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, C, H, W): the network's gradient of each image's margin."""
    size = batch_size(images.shape[1:], torch.device("cpu"))
    return np.concatenate([_slopes_at(network, images[part], weights[part]) for part in batches_of(len(images), size)])


def _slopes_at(network: nn.Module, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    points = torch.from_numpy(images).requires_grad_(True)
    with only_input_gradients(network), evaluation_mode(network):
        margin = (network(points) * torch.from_numpy(weights)).sum()
        if not margin.requires_grad:
            return np.zeros_like(images)
        (gradient,) = torch.autograd.grad(margin, points, allow_unused=True)
    return np.zeros_like(images) if gradient is None else np.asarray(np.nan_to_num(gradient.numpy()))


def _recording_check(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> Check:
    oracle = TorchOracle(network)
    error = relative_error(oracle.logits_and_gradient(images, labels)[0], oracle.logits(images))
    detail = f"with gradients recorded and without, the twin's logits differ by {error:.2g} (relative)"
    return Check(TWIN_GRADIENT_DIFFERS, not error <= RECORDING_TOLERANCE, detail)


def _alignment_check(subject: HostSubject, points: _Points, slopes: np.ndarray) -> Check:
    """Compare predicted and measured changes at every scale, and report the scale with the smallest cosine.

    The slope of a network that bends strongly inside the ball, such as a barely trained one, predicts little at these
    scales. Where the cosine is too small, it is therefore compared with that of the checkpoint, which is trusted, also
    at smaller scales; scales at which the checkpoint's own gradient predicts nothing decide nothing. The checkpoint of
    an artifact in 8 bits is computed in 8 bits, too: at small scales rounding hides the changes, and a scale at which
    it hardly changes decides nothing, since the artifact shows only its own rounding there. Whatever the checkpoint
    does, where its gradient predicts the changes of the artifact, the twin's must predict them nearly as well. If no
    scale decides, the flag says that the gradient was not tested, since a twin with any gradient would do as well.
    """
    found = {scale: points.cosine(subject.score, slopes, scale) for scale in SCALES}
    expected = dict.fromkeys(SCALES, MIN_COSINE)
    if subject.network is not None and not min(found.values()) >= MIN_COSINE:
        own = _slopes(subject.network, points.images, points.weights)
        in_8_bits = subject.precision == "int8"
        score = score_in_8_bits(subject.network) if in_8_bits else TorchOracle(subject.network).logits
        for scale in (*SCALES, *(FINER if subject.precision == "fp32" else ())):
            cosine = points.cosine(score, own, scale)
            still = in_8_bits and cosine == STILL
            expected[scale] = UNDECIDED if cosine < ROUGH or still else min(MIN_COSINE, OF_CHECKPOINT * cosine)
            shown = points.cosine(subject.score, own, scale)
            if MIN_COSINE <= shown != STILL:
                expected[scale] = max(expected[scale], min(MIN_COSINE, OF_CHECKPOINT * shown))
            if scale not in found:
                found[scale] = points.cosine(subject.score, slopes, scale)
    tested = any(found[scale] != STILL and expected[scale] != UNDECIDED for scale in found)
    if not tested and UNDECIDED in expected.values():
        detail = (
            f"at every step from {min(found):g} to {max(found):g} eps the checkpoint's own gradient and its finite "
            f"differences have a cosine below {ROUGH:g}, or it or the artifact changes too little, so that nothing "
            "shows whether the twin's gradient is right"
        )
        return Check(GRADIENT_UNTESTED, True, detail)
    scale = min(found, key=lambda one: found[one] - expected[one])
    detail = (
        f"at steps of {scale:g} eps the twin's gradient and finite differences of the artifact have a cosine of "
        f"{found[scale]:.2f}, at least {expected[scale]:.2g} is expected: the gradient does not show where the margin "
        "falls"
    )
    return Check(TWIN_GRADIENT_DIFFERS, not found[scale] >= expected[scale], detail)


def _mean_cosine(predicted: np.ndarray, measured: np.ndarray, noticeable: float) -> float:
    """Mean over the points of the cosine between two sets of changes.

    Args:
        predicted: (D, N), along D directions.
        measured: (D, N).
        noticeable: points where the artifact changes less, on average, are ignored. The result is STILL if too few
            points are left.
    """
    norms = np.linalg.norm(predicted, axis=0), np.linalg.norm(measured, axis=0)
    moved = norms[1] > noticeable * len(measured) ** 0.5
    if moved.sum() < POINTS // 4:
        return STILL
    cosine = (predicted * measured).sum(axis=0)[moved] / np.maximum(norms[0] * norms[1], 1e-30)[moved]
    return float(cosine.mean())
