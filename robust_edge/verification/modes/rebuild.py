"""Mode `rebuild`: the run exported again with the recorded choices, and compared with the bundle."""

from __future__ import annotations

from robust_edge.verification.new_export import compare_with_run
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.verdict.measurement import Rebuild


def rebuild(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Rebuild:
    """Compare the bundle with a new export of the run, or take the answer of the process that does."""
    run, network = subject.run, subject.network
    assert run is not None, "the mode's row says that it needs a run"
    assert network is not None, "and a run has a network"
    found = None if subject.background is None else subject.background.result()
    return found or compare_with_run(subject.bundle, run, network, settings.data_dir)
