"""The docs' table of tampered kinds, the benchmark's kinds and its result file name the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

for needed in ("torch", "onnx"):
    pytest.importorskip(needed, reason=f"tampered bundles are made with {needed}")

from tests.attacks.kinds.table import KINDS  # noqa: E402

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "benchmarks/results/tampered_kinds.json").read_text("utf-8"))


def test_the_docs_name_every_kind_that_is_made() -> None:
    page = (ROOT / "docs/verification-tampered.md").read_text("utf-8")
    rows = re.findall(r"^\| (.*) \| .* \| `test_\w+`.* \|$", page, re.MULTILINE)
    assert rows == list(dict.fromkeys(kind.row for kind in KINDS))


def test_every_kind_was_verified_and_caught() -> None:
    assert [(row["row"], row["form"]) for row in RESULT["rows"]] == [(kind.row, kind.form) for kind in KINDS]
    for row, kind in zip(RESULT["rows"], KINDS, strict=True):
        assert row["caught"], (row["row"], row["form"])
        assert row["exit"] == kind.exit
        assert set(kind.reasons.split()) <= set(row["reasons"])


def test_the_honest_bundle_passed() -> None:
    first, *others = RESULT["honest"]
    assert (first["target"], first["outcome"]) == ("x86-cpu", "pass")
    assert all(row["reasons"] == [] for row in others)
