from __future__ import annotations

import struct

import pytest

from robust_edge_exporters.formats.tensorrt.differences import calibration_differences

HEAD = "TRT-8201-EntropyCalibration2"


def cache(**steps):
    lines = [f"{name}: {struct.pack('>f', step).hex()}" for name, step in steps.items()]
    return "\n".join([HEAD, *lines]) + "\n"


@pytest.mark.parametrize(
    ("shipped", "words"),
    [
        (cache(a=0.5, b=0.25 * (1 + 8e-6)), ()),
        (cache(a=0.5, b=0.25 * (1 + 2e-5)), ("step of 'b'",)),
        (cache(a=0.5, b=0.26), ("step of 'b' is 0.26 instead of 0.25",)),
        (cache(a=0.5, c=0.25), ("line 3",)),
        (cache(a=0.5), ("line 3",)),
        (cache(a=0.5, b=0.25).replace("8201", "8502"), ("line 1",)),
        ("not a cache", ("line 1",)),
        (cache(a=0.5, b=0.25).replace("3e800000", "nan"), ("line 3",)),
    ],
)
def test_steps_may_round_and_nothing_else(shipped, words, tmp_path):
    for folder, text in (("built", cache(a=0.5, b=0.25)), ("shipped", shipped)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "calibration.cache").write_text(text)
    found = calibration_differences(tmp_path / "built/calibration.cache", tmp_path / "shipped/calibration.cache")
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)
