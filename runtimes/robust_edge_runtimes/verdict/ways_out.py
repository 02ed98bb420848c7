"""What a reader can do about an undecided verdict: more images, or a budget that these images can show."""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Optional, Union

from robust_edge_runtimes.verdict.measurement import STORED, ModeResult, WorstCase
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, Drop, budget_shown, images_to_decide


class Sample(NamedTuple):
    """The images of one mode.

    Attributes:
        mode: its name.
        images: how many it attacks.
        available: how many it could attack without a limit; None if unknown.
        stored: whether they are those that the bundle stores.
    """

    mode: str
    images: int
    available: Optional[int]
    stored: bool

    @property
    def way_out(self) -> str:
        """How to get enough images."""
        if (self.available or 0) >= MIN_IMAGES:
            return f"raise --limit to {MIN_IMAGES} or more"
        return f"export with --golden {MIN_IMAGES} or more" if self.stored else "verify with more test images"


def sample_of(mode: ModeResult) -> Sample:
    """The images of a mode that was run."""
    return Sample(mode.mode, mode.images, mode.available, mode.works_with == STORED or not mode.paired)


def too_few_images(samples: Iterable[Sample]) -> List[str]:
    """One line on all modes with fewer than MIN_IMAGES images; none if each mode has as many."""
    modes: Dict[int, List[str]] = {}
    ways: Dict[str, None] = {}
    for sample in samples:
        if sample.images < MIN_IMAGES:
            modes.setdefault(sample.images, []).append(sample.mode)
            ways[sample.way_out] = None
    if not modes:
        return []
    counts = " and ".join(f"{count} images in mode{'s' * (len(m) > 1)} {', '.join(m)}" for count, m in modes.items())
    return [f"too_few_images: {counts}; at least {MIN_IMAGES} are needed: {', '.join(ways)}"]


def more_or_wider(result: Union[ModeResult, WorstCase], name: str) -> str:
    """How many images would decide an undecided drop, whether there are as many, and which budget these images show.

    Args:
        result: the sample that decides.
        name: `clean` or `robust`.
    """
    drop: Drop = getattr(result, f"{name}_drop")
    needed, available = images_to_decide(drop, result.images), result.available
    text = ", at any number of images" if needed is None else f", about {needed} images would decide"
    if available is None or result.images < MIN_IMAGES:
        return text
    wider = f"these {result.images} suffice for `--max-{name}-drop {budget_shown(drop):g}` or more"
    if available <= result.images:
        return f"{text}; no more than {available} are available; {wider}"
    if needed is not None and needed <= available:
        return f"{text}; {available} are available: raise --limit; {wider}"
    return f"{text}; only {available} are available; {wider}, and a higher --limit a smaller one"
