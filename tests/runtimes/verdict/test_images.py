from __future__ import annotations

import dataclasses
from hashlib import sha256

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.verdict.images import NOISE, ShuffledImages, from_golden, stored_indices


def test_clean_copies_are_new_and_near_and_the_seed_decides(golden):
    drawn = from_golden(golden, None, 1)
    assert sorted(drawn.ids) == list(range(len(golden.labels)))
    assert np.array_equal(drawn.images, golden.clean[drawn.ids])
    assert np.array_equal(drawn.labels, golden.labels[drawn.ids])
    assert np.abs(drawn.clean - drawn.images).max() <= NOISE + 1e-6
    assert drawn.clean.min() >= 0
    assert drawn.clean.max() <= 1
    known = stored_indices(golden)
    assert [known[sha256(image).digest()] for image in drawn.images] == [[number] for number in drawn.ids]
    assert not any(sha256(image).digest() in known for image in drawn.clean)
    same, other = from_golden(golden, 20, 1), from_golden(golden, 20, 2)
    assert np.array_equal(same.clean, from_golden(golden, 20, 1).clean)
    assert set(same.ids) != set(other.ids)
    with pytest.raises(InputError, match="checks nothing"):
        from_golden(golden, 0, 1)


@pytest.mark.parametrize("others", [0, 1])
def test_an_image_that_occurs_several_times_has_a_number_each_time(golden, others):
    """Two of three copies are stored; with another label the drawn image is none of them."""
    copies = dataclasses.replace(golden, clean=np.repeat(golden.clean[:1], 2, 0), labels=golden.labels[[0, 0]])
    images, labels = np.repeat(golden.clean[:1], 3, 0), golden.labels[[0, 0, 0]] + others
    drawn = ShuffledImages(lambda rows: images[rows], labels, copies, 1).draw(0, 3)
    assert len(set(drawn.ids.tolist())) == 3
    assert sum(number < 2 for number in drawn.ids) == (0 if others else 2)
    assert not any(np.array_equal(drawn.clean[i], drawn.images[i]) for i in range(3))
