from __future__ import annotations

from robust_edge_runtimes.verdict.flags import VALIDITY_FLAGS, Check, Flag, raised


def test_no_two_rows_have_one_name_and_each_says_what_it_means():
    names = [flag.name for flag in VALIDITY_FLAGS]
    assert len(set(names)) == len(names)
    for flag in VALIDITY_FLAGS:
        assert len(flag.meaning) > 20
        assert flag.raised_by


def test_only_raised_checks_become_flags():
    checks = [Check("a", raised=True, detail="x"), Check("b", raised=False, detail=""), Check("c", None, "")]
    assert raised(checks) == [Flag("a", "x")]
