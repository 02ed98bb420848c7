"""Every CPU target on the zoo's smallest network; benchmarks/cpu_targets.py does the same for the large ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from robust_edge_exporters.target import targets
from robust_edge_runtimes.formats.native.engine import find_compiler

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = [name for name, target in targets().items() if "cpu" in target.family and target.jetpack is None]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cpu_targets

    yield cpu_targets
    for name in ("cpu_targets", "zoo"):
        sys.modules.pop(name, None)


def test_no_cpu_target_is_left_out(script):
    assert script.cpu_targets() == NAMES
    assert {"x86-cpu", "arm-cpu", "x86-cpu-int8", "arm-cpu-int8", "x86-cpu-csr"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_exports_loads_in_a_fresh_process_and_computes_the_same(script, name, tmp_path):
    if name.endswith("sparse") and find_compiler() is None:
        pytest.skip("there is no C compiler")
    row = script.check("small_cnn", name, tmp_path)
    assert row["holds"], row
    assert row["zeros_exact"]
    if row["precision"] == "fp32":
        assert row["max_logit_error"] <= 1e-4
        assert row["argmax_agreement"] == 1
    else:
        assert row["argmax_agreement"] >= 0.5
