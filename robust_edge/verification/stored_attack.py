"""Repeat the attack that a bundle says its stored images come from, and compare the images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.attacks.pgd import Pgd, attack_from, random_start
from robust_edge.evaluation.batch_size import MOST_IMAGES, batch_size
from robust_edge.models import Normalized
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.batches import batches_of
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.scoring import Score

REPEATED = MOST_IMAGES  # stored images whose attack is made again
LEAST_REPEATED = 16  # of them, however many steps are claimed
SAME_PIXEL = 0.1  # of ε
SAME_IMAGES = 0.02  # share of the pixels that may lie elsewhere on any network
ROUNDING = 1e-5  # of an image's largest gradient: ten times the usual difference between two kinds of kernels in fp32
ROUNDING_MARGIN = 2.0
MOST_MOVED = 0.12  # share of the pixels: half of the claimed steps can differ at as few
STANDARD_ERRORS = 4.0


class RoundedGradients(nn.Module):
    """The same network with normal noise on each image's gradient, of `share` times its largest value."""

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        self.network, self.share, self.generator = network, share, torch.Generator().manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        """As the network; the noise comes in the backward pass."""
        if images.requires_grad:
            images.register_hook(self._rounded)
        logits: Tensor = self.network(images)
        return logits

    def _rounded(self, gradient: Tensor) -> Tensor:
        noise = torch.randn(gradient.shape, generator=self.generator)
        return gradient + self.share * gradient.abs().amax((1, 2, 3), keepdim=True) * noise


def other_images(
    attack: AttackSpec, golden: Golden, network: Normalized, score: Score, *, steps: int, seed: int
) -> str:
    """Say how many pixels of the stored images the claimed attack does not give; empty if it gives the images.

    The attack is made again from its recorded seed, with all its steps, on random ones of the stored images: 250, or as
    many fewer as it takes more than `steps` steps, at least 16. A pixel is the same within 0.1 ε. On one machine all
    pixels are the same, with any batch size and number of threads. Another order of additions turns the sign of
    gradients that are almost zero, and the steps after it go elsewhere: how often depends on the network. Where more
    than SAME_IMAGES of the pixels differ, the attack is therefore made once more under noise of the size of rounding,
    and twice the pixels that this noise moves may differ. On a network that it moves more than half of MOST_MOVED, the
    strengths of the attacks are compared instead.

    `benchmarks/stored_attack.py` measures both sides. An export under another arithmetic (without AVX, without oneDNN,
    with other memory formats, gradients in float64) differs at up to 0.2% of the pixels on small networks of 8x8 and
    32x32 pixels, and at up to 2.0% on a residual network at 32x32 (12 attacked images), where the noise moves 5.8%. An
    export of half of the claimed steps differs at 8% to 18%, of four fifths at 4% to 16%, of another seed at 20% to
    29%.

    Args:
        attack: PGD with at least one step, as claimed.
        golden: the stored images.
        network: the run's network.
        score: the same as a function from images to logits.
        steps: of this verification's own attacks, which bound the work.
        seed: for the choice of the images.
    """
    rows = _chosen(golden, attack, steps, seed)
    again, allowed = made_again(attack, golden, network, rows), SAME_IMAGES
    share = elsewhere(attack, golden, rows, golden.attacked[rows], again)
    if share > allowed:
        rounded = made_again(attack, golden, RoundedGradients(network, ROUNDING), rows)
        allowed = max(allowed, ROUNDING_MARGIN * elsewhere(attack, golden, rows, rounded, again))
    if allowed > MOST_MOVED:
        return _weaker(attack, golden, score, rows, again)
    if share <= allowed:
        return ""
    return (
        f"attack {attack.name}, {attack.steps} steps: made again from seed {attack.seed} on {len(rows)} images, it "
        f"gives other values at {100 * share:.1f}% of the pixels than the stored images have; rounding explains "
        f"{100 * allowed:.2g}%"
    )


def elsewhere(attack: AttackSpec, golden: Golden, rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels at which two attacks on these images differ, of the images that one of them moved."""
    clean = golden.clean[rows]
    moved = ((one != clean) | (other != clean)).any(axis=(1, 2, 3))
    return float((np.abs(one - other)[moved] > SAME_PIXEL * attack.eps).mean()) if moved.any() else 0.0


def _weaker(attack: AttackSpec, golden: Golden, score: Score, rows: np.ndarray, again: np.ndarray) -> str:
    """Say by how much the stored images are weaker than the repeated ones: losses and broken images are compared."""
    labels, stored, repeated = golden.labels[rows], score(golden.attacked[rows]), score(again)
    broken = is_right(stored, labels).astype(float) - is_right(repeated, labels)
    stronger = _loss(repeated, labels) - _loss(stored, labels)
    for figure, differences in (("breaks", broken), ("raises the loss of", stronger)):
        error = float(differences.std()) / math.sqrt(len(rows))
        if differences.mean() > STANDARD_ERRORS * max(error, 1e-6) and differences.sum() > STANDARD_ERRORS:
            return (
                f"attack {attack.name}, {attack.steps} steps: made again it {figure} more of {len(rows)} images than "
                f"the stored ones, by {differences.mean():.3g} ± {error:.2g} per image"
            )
    return ""


def _chosen(golden: Golden, attack: AttackSpec, steps: int, seed: int) -> np.ndarray:
    """Sorted positions (n,) of random stored images; the work is that of `steps` steps on REPEATED of them."""
    count = max(LEAST_REPEATED, REPEATED * min(steps, attack.steps) // attack.steps)
    return np.sort(np.random.default_rng(seed).permutation(len(golden.labels))[:count])


def made_again(attack: AttackSpec, golden: Golden, network: nn.Module, rows: np.ndarray) -> np.ndarray:
    """(len(rows), C, H, W): the claimed attack on these stored images, from the random starts of an export."""
    clean, pgd, threat = torch.from_numpy(golden.clean), Pgd(steps=attack.steps, restarts=1), Threat(attack.eps)
    size, generator = batch_size(clean.shape[1:], clean.device), torch.Generator().manual_seed(attack.seed)
    chosen = torch.zeros(len(clean), dtype=torch.bool)
    chosen[rows] = True
    drawn = [random_start(clean[part], pgd, threat, generator)[chosen[part]] for part in batches_of(len(clean), size)]
    images, labels, starts = clean[chosen], torch.from_numpy(golden.labels)[chosen], torch.cat(drawn)
    parts = [
        attack_from(network, images[part], labels[part], pgd, threat, starts[part]).images
        for part in batches_of(len(images), size)
    ]
    return torch.cat(parts).numpy()


def _loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) cross-entropy, clamped at 10 so that a single image does not dominate the mean."""
    wide = torch.from_numpy(logits).double()
    loss = torch.nn.functional.cross_entropy(wide, torch.from_numpy(labels), reduction="none")
    return loss.clamp(max=10).numpy()
