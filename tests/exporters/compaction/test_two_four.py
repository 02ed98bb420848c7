"""The share of 2:4, counted by hand."""

import numpy as np
import pytest

from robust_edge_exporters.compaction.two_four import two_four_share

PATTERN = np.tile([1.0, 0.0, 0.0, 2.0], (3, 2))  # 24 weights
DENSE = np.ones((2, 4))  # 8 weights


@pytest.mark.parametrize(
    ("layers", "share"),
    [
        ([], 0.0),
        ([DENSE], 0.0),
        ([PATTERN], 1.0),
        ([PATTERN, DENSE], 24 / 32),
        ([PATTERN, np.ones((8, 3))], 1.0),  # reads fewer than four inputs
        ([PATTERN, np.zeros((4, 6))], 24 / 48),  # six inputs have no groups of four
        ([np.where(np.arange(24).reshape(3, 8) < 3, 1.0, 0.0)], 0.0),  # one group of three is one too many
    ],
)
def test_by_hand(layers, share):
    assert two_four_share(layers) == share
