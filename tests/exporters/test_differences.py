from __future__ import annotations

import numpy as np
import pytest

from robust_edge_exporters.differences import byte_differences, tensor_difference


@pytest.fixture
def compared(tmp_path):
    """compared(the export's bytes, the bundle's bytes) -> lines."""

    def compare(ours, theirs):
        for folder, data in (("built", ours), ("shipped", theirs)):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "file").write_bytes(data)
        return byte_differences(tmp_path / "built/file", tmp_path / "shipped/file")

    return compare


@pytest.mark.parametrize(
    ("ours", "theirs", "line"),
    [
        (b"a\nb\nc\n", b"a\nx\nc\n", "file, line 2 is 'x', the export has 'b'"),
        (b"a\nb", b"a", "file ends after line 1, the export's goes on with 'b'"),
        (b"a", b"a\nb", "file, line 2 is 'b', the export ends before it"),
        (b"\xff\x00\x01\x02", b"\xff\x00\x05\x06", "file: 2 of 4 bytes differ, the first at offset 2"),
        (b"\xff\x00", b"\xff\x00\x00", "file has 3 bytes, the export 2"),
    ],
)
def test_the_first_place_is_named(ours, theirs, line, compared):
    assert compared(ours, theirs) == [line]


def test_equal_bytes_have_no_difference(compared):
    assert compared(b"a\r\nb\xff", b"a\r\nb\xff") == []


def test_rows_and_distance_of_a_tensor_are_named():
    ours = np.arange(12, dtype=np.float32).reshape(6, 2)
    theirs = ours.copy()
    theirs[4, 1] += 0.5
    line = tensor_difference("weight", ours, theirs)
    assert line == "weight: 1 of 12 values differ in row 4 of 6, by up to 0.5 (largest value 11)"
    theirs[:5] = 0
    assert "in rows 0, 1, 2, 3 and 1 more of 6" in tensor_difference("weight", ours, theirs)
    assert tensor_difference("weight", ours, ours[:3]) == "weight is float32 (3, 2) instead of float32 (6, 2)"


def test_what_is_no_number_differs_from_a_number():
    ours, theirs = np.array([1.0, np.nan], np.float32), np.array([np.nan, np.nan], np.float32)
    assert "1 of 2 values differ" in tensor_difference("weight", ours, theirs)
