from __future__ import annotations

from types import SimpleNamespace

from robust_edge.run.environment import versions
from robust_edge.verification.new_export import GRAPH_PACKAGES, _versions


def listed(given):
    return _versions(SimpleNamespace(source=SimpleNamespace(versions=given)))


def test_long_names_of_versions_are_cut():
    invented = {f"{i:04}" + "n" * 1000: "v" * 1000 for i in range(3000)}
    assert listed(invented) == ()
    assert len(", ".join(listed({name: "v" * 1000 for name in GRAPH_PACKAGES}))) < 1000


def test_versions_that_make_the_graph_are_listed_first():
    """Every installed package is recorded; most of them change no file."""
    given = {name: "0.1" for name in sorted({*versions(), *GRAPH_PACKAGES, "captum", "matplotlib"})}
    assert tuple(line.split()[0] for line in listed(given)) == GRAPH_PACKAGES


def test_equal_versions_are_not_listed():
    assert listed(versions()) == ()
    assert [line.split(", here")[0] for line in listed({**versions(), "torch": "0.1"})] == ["torch 0.1"]
