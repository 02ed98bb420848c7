"""Images outside the test split, to find an artifact that computes the checkpoint's logits only near test images."""

from __future__ import annotations

import numpy as np

from robust_edge.verification.subject import HostSubject

COUNT = 64  # images of each kind
SHIFT = 2  # pixels, at most
SHARES = (0.3, 0.7)  # of the first of two images in a mixture


def probes(subject: HostSubject, seed: int) -> list[tuple[str, np.ndarray]]:
    """Kinds of images by name, each (n, C, H, W) float32 in [0, 1], drawn by the seed."""
    random = np.random.default_rng((seed, *subject.images.ids[:1]))
    drawn = subject.images.images
    chosen = drawn[random.permutation(len(drawn))[:COUNT]]
    training, _ = subject.training_images(COUNT, random)
    kinds = {
        "training images": training,
        "shifted images": np.roll(chosen, random.integers(1, SHIFT + 1, 2).tolist(), axis=(2, 3)),
        "mixtures of two images": mixtures(chosen, random),
        "uniform noise": random.uniform(0, 1, chosen.shape).astype(np.float32),
    }
    return [(name, images) for name, images in kinds.items() if len(images)]


def mixtures(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n, C, H, W): convex combinations of each image and a random other one."""
    share = random.uniform(*SHARES, (len(images), 1, 1, 1)).astype(np.float32)
    mixed: np.ndarray = np.clip(share * images + (1 - share) * images[random.permutation(len(images))], 0, 1)
    return mixed
