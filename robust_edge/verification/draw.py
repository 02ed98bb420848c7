"""The images of the modes that attack: drawn anew for every seed, and none that the bundle has seen."""

from __future__ import annotations

import numpy as np
import torch

from robust_edge.data import Split
from robust_edge_runtimes.core.bundle import Golden
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.fresh import Fresh, stored_index, under_noise

CHUNK = 500


def draw(split: Split, golden: Golden, limit: int | None, seed: int) -> Fresh:
    """Test images in an order of the seed's, those first that the bundle does not hold.

    Where the split has no others, images that the bundle holds fill up, judged by copies under noise.

    Args:
        split: the run's test images.
        golden: the bundle's.
        limit: at most so many; None takes all.
        seed: of the draw and of the noise.

    Raises:
        InputError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} images checks nothing; give at least 1")
    random = np.random.default_rng(seed)
    order, wanted = random.permutation(len(split)), len(split) if limit is None else min(limit, len(split))
    known = stored_index(golden)
    strangers: list[int] = []
    stored: list[tuple[int, int]] = []
    for start in range(0, len(order), CHUNK):
        chosen = order[start : start + CHUNK]
        for position, image in zip(chosen.tolist(), _floats(split, chosen), strict=True):
            index = known.get(image.tobytes())
            if index is None:
                strangers.append(position)
            else:
                stored.append((position, index))
        if len(strangers) >= wanted:
            break
    strangers = strangers[:wanted]
    stored = stored[: wanted - len(strangers)]
    positions = np.array([*strangers, *(position for position, _ in stored)], np.int64)
    images = _floats(split, positions)
    probes = images.copy()
    probes[len(strangers) :] = under_noise(images[len(strangers) :], random)
    ids = np.concatenate([len(golden.labels) + positions[: len(strangers)], [index for _, index in stored]])
    return Fresh(images, probes, split.labels[torch.from_numpy(positions)].numpy(), ids.astype(np.int64))


def _floats(split: Split, positions: np.ndarray) -> np.ndarray:
    return split.floats(torch.from_numpy(positions)).numpy()
