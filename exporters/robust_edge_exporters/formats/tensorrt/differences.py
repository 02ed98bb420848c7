"""Compare two calibration caches of TensorRT: the range of each tensor."""

from __future__ import annotations

import struct
from pathlib import Path

from robust_edge_exporters.differences import byte_differences
from robust_edge_exporters.formats.onnx.differences import SCALE


def calibration_differences(built: Path, shipped: Path) -> list[str]:
    """Compare the scales of the tensors within the rounding of different CPUs, and everything else exactly."""
    try:
        (head, ours), (other_head, theirs) = _steps(built), _steps(shipped)
    except (ValueError, struct.error):
        return byte_differences(built, shipped)
    if head != other_head or set(ours) != set(theirs) or built.stat().st_size != shipped.stat().st_size:
        return byte_differences(built, shipped)
    return [
        f"{shipped.name}: the step of {name!r} is {theirs[name]:.6g} instead of {step:.6g}"
        for name, step in ours.items()
        if not abs(step - theirs[name]) <= SCALE * abs(step)
    ]


def _steps(path: Path) -> tuple[str, dict[str, float]]:
    """The first line, and the step of each tensor."""
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.rsplit(": ", 1) for line in lines]
    return head, {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, digits in pairs}
