"""Mode `rebuild`: export the run again with the recorded choices, and compare the files with the bundle's."""

from __future__ import annotations

from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.verdict.measurement import Rebuild


def rebuild(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Rebuild:
    """Compare the bundle with a new export of the run, unless this verdict already has the comparison."""
    assert subject.find_rebuild is not None, "the mode's row says that it needs a run"
    return subject.find_rebuild()
