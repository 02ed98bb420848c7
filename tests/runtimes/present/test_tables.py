from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robust_edge_runtimes.bench.cold_start import ColdStart
from robust_edge_runtimes.bench.energy import EnergySource
from robust_edge_runtimes.bench.harness import Harness
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Entry, summarise
from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.present.bench import bench_table
from robust_edge_runtimes.present.tables import percent, table
from robust_edge_runtimes.present.verdict import rebuild_line, verdict_table
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget, Rebuild
from robust_edge_runtimes.verdict.subject import subject_of

(replay,) = (mode.measure for mode in DEVICE_MODES if mode.name == "replay")


def test_columns_line_up():
    lines = table(["name", "n"], [["a", "1"], ["longer", "22"]]).splitlines()
    assert lines == ["name     n", "------  --", "a        1", "longer  22"]


def test_columns_of_words_stand_to_the_left():
    lines = table(["name", "for", "n"], [["a", "predict", "1"], ["longer", "x", "22"]], words=2).splitlines()
    assert lines[2:] == ["a       predict   1", "longer  x        22"]


def test_a_table_without_rows_is_its_header():
    assert table(["a", "b"], []).splitlines() == ["a  b", "-  -"]


@pytest.mark.parametrize(("fraction", "text"), [(0, "0.0%"), (1, "100.0%"), (0.9876, "98.8%"), (0.10049, "10.0%")])
def test_percent(fraction, text):
    assert percent(fraction) == text


@pytest.fixture
def verdict(Fake, opened, golden, linear):
    def of(function, **budget):
        limits = Budget(**budget)
        with Fake(opened.manifest, function) as model:
            subject = subject_of(opened, model)
            return judge(inspect_artifact(subject), [replay(subject, ModeSettings())], limits)

    return of


def test_a_pass_shows_both_accuracies_the_notes_and_the_word(verdict, linear):
    result = verdict(linear.logits, clean=7, robust=7)
    lines = verdict_table(result).splitlines()
    robust = percent(result.modes[0].artifact_robust)
    assert lines[2].split()[:5] == ["replay", "clean", "60", "100.0%", "100.0%"]
    assert lines[3].split()[:10] == ["replay", "pgd", "eps=0.05,", "1", "steps,", "seed", "7", "60", robust, robust]
    assert sum(line.startswith("note: ") for line in lines) == len(result.notes) == 1  # of the bundle's own tolerance
    assert lines[-1].startswith("PASS  x86-cpu artifact " + result.artifact_sha256[:12])


def test_an_undecided_verdict_shows_what_is_missing(verdict, linear):
    result = verdict(linear.logits)
    lines = verdict_table(result).splitlines()
    assert [line for line in lines if line.startswith("UNDECIDED ")][:2] == [
        f"UNDECIDED {line}" for line in result.undecided
    ]
    assert lines[-1].startswith("UNDECIDED  x86-cpu artifact ")


def test_a_fail_shows_every_reason(verdict, linear):
    result = verdict(lambda images: np.roll(linear.logits(images), 1, axis=1))
    lines = verdict_table(result).splitlines()
    assert [line for line in lines if line.startswith("FAILED ")] == [f"FAILED {reason}" for reason in result.reasons]
    assert lines[-1].startswith("FAIL  ")
    assert "PASS" not in verdict_table(result)


@pytest.fixture
def result():
    entry = Entry(
        label="a",
        target="x86-cpu",
        artifact_sha256="0" * 64,
        artifact_bytes=12_345,
        keep=0.1,
        runtime=RuntimeInfo("fake", "1", "cpu", "fake", 1),
        cold_start=ColdStart(250_000_000, 1_500_000, 64 << 20),
        max_logit_error=0.0,
        latencies=(summarise(ONE_IMAGE, 1, [[2_000_000] * 3] * 10), summarise(N_IMAGES, 50, [[10_000_000]] * 10)),
        speedup={ONE_IMAGE: 1.0, N_IMAGES: 1.0},
    )
    fast = dataclasses.replace(
        entry,
        label="b",
        latencies=(
            summarise(ONE_IMAGE, 1, [[500_000] * 3] * 9 + [[900_000] * 3]),
            summarise(N_IMAGES, 50, [[5_000_000]] * 10),
        ),
        speedup={ONE_IMAGE: 4.0, N_IMAGES: 2.0},
    )
    return Bench(dataclasses.replace(machine(), cpu="CPU9", governor="powersave"), 2, "a", (entry, fast))


def test_bench_rows_are_in_milliseconds_and_images_per_second(result):
    rows = [line.split() for line in bench_table(result).splitlines()]
    assert rows[2] == ["a", "1", "2.000", "2.000", "2.000", "2.000", "2.000", "500", "1.00x", "30"]
    assert rows[3] == ["a", "50", *["10.000"] * 5, "5000", "1.00x", "10"]
    assert rows[4][:4] == ["b", "1", "0.500", "0.500"]
    assert rows[5][-3:] == ["10000", "2.00x", "10"]
    assert ["a", "250", "1.5", "64", "12", "10.0%"] in rows


def test_bench_names_machine_and_baseline_and_warns_of_drift(result):
    text = bench_table(result)
    assert "speed-up against 'a'; 2 thread(s) on CPU9, governor powersave" in text
    assert [line for line in text.splitlines() if line.startswith("unstable!")] == [
        "unstable! b, one image: the medians of the slices differ by 80%; repeat on an idle machine"
    ]
    assert "30!" in text


def test_bench_says_what_the_harness_costs(result):
    fine = bench_table(dataclasses.replace(result, harness=Harness(4_000, 6_000, "b", 0.008, False)))
    assert "measurement overhead: 4.00 us per call, 0.8% of the median of 'b'; infer() takes 6 us more" in fine
    heavy = bench_table(dataclasses.replace(result, harness=Harness(40_000, 6_000, "b", 0.08, True)))
    assert "8.0% of the median of 'b', too much to compare bundles that are this fast" in heavy


def test_bench_shows_energy_where_there_is_any(result):
    assert "mJ/image" not in bench_table(result)
    dense, fast = result.entries
    metered = dataclasses.replace(
        dense,
        latencies=tuple(dataclasses.replace(part, joules_per_image=0.0125) for part in dense.latencies),
        energy=EnergySource("RAPL package-0", None),
    )
    blind = dataclasses.replace(fast, energy=EnergySource(None, "RAPL package-0 does not count Orin"))
    text = bench_table(dataclasses.replace(result, entries=(metered, blind)))
    rows = [line.split() for line in text.splitlines()]
    assert [row[-1] for row in rows[0:6] if "-" not in row[0]] == ["mJ/image", "12.5", "12.5", "-", "-"]
    assert "energy: everything that RAPL package-0 measures, idle power included" in text
    assert "energy not measured: RAPL package-0 does not count Orin" in text


def test_bench_tells_a_fixed_batch(result):
    dense, fast = result.entries
    entries = (dataclasses.replace(dense, fixed_batch=1), dataclasses.replace(fast, fixed_batch=8))
    text = bench_table(dataclasses.replace(result, entries=entries))
    assert "b has a fixed batch: every call computes 8 images, even for one image" in text
    assert "a has a fixed batch" not in text


def test_the_last_line_of_a_bench_with_a_budget_is_the_outcome(result):
    met = dataclasses.replace(result, max_p90_ms=2.5)
    assert bench_table(met).splitlines()[-1] == "PASS  p90 of one image within 2.5 ms"
    over = dataclasses.replace(met, over_budget=("a: too slow", "b: too slow"))
    assert bench_table(over).splitlines()[-2:] == ["FAILED a: too slow", "FAILED b: too slow"]
    assert "PASS" not in bench_table(over)


def test_a_rebuild_is_one_line():
    equal = Rebuild(True, (), ("model.onnx", "run.py"), 1.25)
    assert rebuild_line(equal) == "rebuild: 2 files equal those that the run exports again (1.2 s)"
    other = dataclasses.replace(equal, equal=False, differences=("run.py",))
    assert rebuild_line(other) == "rebuild: 2 files differ from a new export in 1 place (1.2 s)"
