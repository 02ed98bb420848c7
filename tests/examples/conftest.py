"""The bundle's pictures and their answers."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.load import load


@pytest.fixture(scope="module")
def levels(golden):
    """Eight pictures of 8 bits."""
    return np.round(golden.clean[:8] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def answers(sealed, levels):
    """Their labels and probabilities."""
    with load(sealed) as model:
        return [model.classify(picture.astype(np.float32) / np.float32(255)) for picture in levels]


@pytest.fixture(scope="module")
def pictures(levels, tmp_path_factory):
    image = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(levels):
        image.fromarray(picture[0]).save(folder / f"{i}.png")
    return folder
