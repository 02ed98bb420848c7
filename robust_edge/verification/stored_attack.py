"""Repeat the attack that a bundle says its stored images come from, and compare the images."""

from __future__ import annotations

import math

import numpy as np
import torch

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
SAME_IMAGES = 0.02  # share of the pixels that may lie elsewhere
STANDARD_ERRORS = 4.0


def other_images(attack: AttackSpec, golden: Golden, network: Normalized, *, steps: int, seed: int) -> str:
    """Say how many pixels of the stored images the claimed attack does not give; empty if it gives the images.

    The attack is made again from its recorded seed, with all its steps, on random ones of the stored images: 250, or as
    many fewer as it takes more than `steps` steps, at least 16. A pixel is the same within 0.1 ε. On one machine all
    pixels are the same, with any batch size and number of threads. Another order of additions turns the sign of
    gradients that are almost zero: with convolutions of another library, gradients in fp64 or noise of 1e-6 on the
    weights, at most 0.07% of the pixels of 250 digits lie elsewhere, 0.5% of those of 16; with noise of 1e-5, as of
    another kind of arithmetic, 0.5% of those of 250. Stored images of 10 steps that claim 20 differ at 12% or more of
    the pixels, of 20 that claim 50 at 6%, of 20 that claim 1000 at 9%. The 2% that are allowed are four times the first
    figures and a third of the second ones.

    Args:
        attack: PGD with at least one step, as claimed.
        golden: the stored images.
        network: the run's network.
        steps: of this verification's own attacks, which bound the work.
        seed: for the choice of the images.
    """
    rows = _chosen(golden, attack, steps, seed)
    clean, stored, again = golden.clean[rows], golden.attacked[rows], _made_again(attack, golden, network, rows)
    moved = ((again != clean) | (stored != clean)).any(axis=(1, 2, 3))
    elsewhere = np.abs(stored - again)[moved] > SAME_PIXEL * attack.eps
    if not moved.any() or elsewhere.mean() <= SAME_IMAGES:
        return ""
    return (
        f"attack {attack.name}, {attack.steps} steps: made again from seed {attack.seed} on {len(rows)} images, it "
        f"gives other values at {100 * elsewhere.mean():.1f}% of the pixels than the stored images have; rounding "
        f"explains {100 * SAME_IMAGES:g}%"
    )


def weaker_images(
    attack: AttackSpec, golden: Golden, network: Normalized, score: Score, *, steps: int, seed: int
) -> str:
    """Say by how much the stored images are weaker than the claimed attack, for bundles of release 0.1.

    The losses and the numbers of broken images are compared at four standard errors. Arguments as for `other_images`;
    `score` is the network as a function from images to logits.
    """
    rows = _chosen(golden, attack, steps, seed)
    labels, again = golden.labels[rows], _made_again(attack, golden, network, rows)
    stored, repeated = score(golden.attacked[rows]), score(again)
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


def _made_again(attack: AttackSpec, golden: Golden, network: Normalized, rows: np.ndarray) -> np.ndarray:
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
