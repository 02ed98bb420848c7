"""Names that others build on stay where they are."""

from __future__ import annotations

import robust_edge_runtimes
from robust_edge import pruning
from robust_edge_exporters.formats import table as exported
from robust_edge_exporters.target import targets
from robust_edge_runtimes.formats import table as executed


def test_the_app_developers_names() -> None:
    promised = {
        "BackendUnavailable BaseRuntime Bundle BundleError ExportError Golden InputError RobustEdgeError Runtime",
        "RuntimeInfo load open_bundle",
    }
    names = {name for line in promised for name in line.split()}
    assert set(robust_edge_runtimes.__all__) == names
    assert all(hasattr(robust_edge_runtimes, name) for name in names)
    assert callable(robust_edge_runtimes.load)


def test_the_names_for_training_loops_of_ones_own() -> None:
    promised = {
        "PruningState",
        "attach_masks",
        "finish",
        "init",
        "materialised",
        "penalty",
        "prunable_parameters",
        "step",
    }
    assert set(pruning.__all__) == promised
    assert all(callable(getattr(pruning, name)) for name in promised)


def test_every_target_has_an_exporter_and_a_runtime() -> None:
    table = targets()
    assert "x86-cpu" in table
    for target in table.values():
        assert target.format in exported.FORMATS
        assert executed.runtime_class(target.format)
    assert set(exported.FORMATS) == set(executed.FORMATS)
