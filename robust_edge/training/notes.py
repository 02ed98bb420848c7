"""Notes on a config that is valid, but whose run will not do what its user may expect."""

from __future__ import annotations

from robust_edge.config.compress import CompressConfig
from robust_edge.training.divergence import note_on_collapse
from robust_edge.training.schedules import note_on_random_weights
from robust_edge.training.selection import note_on_selection


def notes_on(config: CompressConfig) -> list[str]:
    """The notes, for people, to show before the training.

    Raises:
        InputError: a schedule does not have one value for each epoch that it applies to.
    """
    found = (note(config) for note in (note_on_collapse, note_on_random_weights, note_on_selection))
    return [note for note in found if note is not None]
