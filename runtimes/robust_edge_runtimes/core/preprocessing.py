"""How pictures of any size become images of a network, as a record in runs and manifests."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Tuple

from robust_edge_runtimes.core.pictures import WHITE

INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
MAX_SIDE = 1 << 14


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What `read_picture` does with a picture, in this order: composite, turn upright, scale, crop.

    Attributes:
        resize: (height, width) to scale to, whatever the aspect; (length,) to scale the shorter side to it and keep the
            aspect; None to keep the size.
        crop: (height, width) to cut from the middle; None for nothing.
        interpolation: one of INTERPOLATIONS.
        background: red, green and blue in [0, 255] of what is behind transparent parts.
    """

    resize: Optional[Tuple[int, ...]] = None
    crop: Optional[Tuple[int, ...]] = None
    interpolation: str = "bilinear"
    background: Tuple[int, ...] = WHITE

    @property
    def frame(self) -> Optional[Tuple[int, ...]]:
        """(height, width) of every image; None where it is that of the pictures."""
        exact = self.resize if self.resize is not None and len(self.resize) == 2 else None
        return self.crop or exact

    @property
    def problem(self) -> Optional[str]:
        """Why it is impossible; None if it is not."""
        sides = (*(self.resize or ()), *(self.crop or ()))
        if self.resize is not None and len(self.resize) not in (1, 2):
            return "resize must have one length or two"
        if self.crop is not None and len(self.crop) != 2:
            return "crop must have a height and a width"
        if not all(1 <= side <= MAX_SIDE for side in sides):
            return f"resize and crop must have lengths of 1 to {MAX_SIDE}"
        if self.resize is not None and self.crop is not None:
            height, width = (self.resize * 2)[:2]
            if self.crop[0] > height or self.crop[1] > width:
                return f"crop {_shown(self.crop)} is larger than resize {_shown(self.resize)}"
        if self.resize is not None and len(self.resize) == 1 and self.crop is None:
            return "resize to a shorter side leaves the other open; a crop is needed"
        if self.interpolation not in INTERPOLATIONS:
            return f"interpolation must be one of {', '.join(INTERPOLATIONS)}"
        if len(self.background) != 3 or not all(0 <= level <= 255 for level in self.background):
            return "background must be three levels of 0 to 255"
        return None

    def rules(self) -> Dict[str, Any]:
        """The record as plain values, for `read_picture`."""
        return dataclasses.asdict(self)


def _shown(sides: Tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
