"""Notes on a config that is valid, but whose run will not do what its user may expect."""

from __future__ import annotations

from robust_edge.config.compress import CompressConfig
from robust_edge.training.divergence import unwatched
from robust_edge.training.schedules import unprepared
from robust_edge.training.selection import unselected


def notes_on(config: CompressConfig) -> list[str]:
    """The notes, for people, to show before the training.

    Raises:
        InputError: a schedule does not have one value for each epoch that it applies to.
    """
    found = (note(config) for note in (unwatched, unprepared, unselected))
    return [note for note in found if note is not None]
