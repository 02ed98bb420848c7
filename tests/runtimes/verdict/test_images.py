from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.images import NOISE, from_golden, stored_index


def test_clean_copies_are_new_and_near_and_the_seed_decides(golden):
    drawn = from_golden(golden, None, 1)
    assert sorted(drawn.ids) == list(range(len(golden.labels)))
    assert np.array_equal(drawn.images, golden.clean[drawn.ids])
    assert np.array_equal(drawn.labels, golden.labels[drawn.ids])
    assert np.abs(drawn.clean - drawn.images).max() <= NOISE + 1e-6
    assert drawn.clean.min() >= 0
    assert drawn.clean.max() <= 1
    known = stored_index(golden)
    assert [known[image.tobytes()] for image in drawn.images] == drawn.ids.tolist()
    assert not any(image.tobytes() in known for image in drawn.clean)
    same, other = from_golden(golden, 20, 1), from_golden(golden, 20, 2)
    assert np.array_equal(same.clean, from_golden(golden, 20, 1).clean)
    assert set(same.ids) != set(other.ids)
    with pytest.raises(InputError, match="checks nothing"):
        from_golden(golden, 0, 1)
