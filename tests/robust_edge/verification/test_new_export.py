from __future__ import annotations

from types import SimpleNamespace

from robust_edge.verification.new_export import _versions


def test_of_many_versions_the_first_are_listed():
    invented = {f"{i:04}" + "n" * 1000: "v" * 1000 for i in range(3000)}
    lines = _versions(SimpleNamespace(source=SimpleNamespace(versions=invented)))
    assert len(lines) == 6
    assert lines[-1] == "and 2995 more"
    assert len(", ".join(lines)) < 1000


def test_versions_of_this_machine_are_not_listed():
    given = {"torch": "0.1", "no-such-package": "1"}
    lines = _versions(SimpleNamespace(source=SimpleNamespace(versions=given)))
    assert [line.split(", here")[0] for line in lines] == ["no-such-package 1", "torch 0.1"]
