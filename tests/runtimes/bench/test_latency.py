from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import statistics
import sys

import numpy as np
import pytest

from robust_edge_runtimes.bench import cold_start, energy, latency
from robust_edge_runtimes.bench.cold_start import measure_cold_start
from robust_edge_runtimes.bench.energy import EnergySource, Meter
from robust_edge_runtimes.bench.latency import ROUNDS, Contender, bench
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, summarise
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, InputError
from robust_edge_runtimes.core.limits import TimeLimit
from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")


def percentile(samples, q):
    """Linear interpolation between the two nearest ranks, written out."""
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_the_summary_is_what_the_samples_say(count):
    samples = [int(x) for x in np.random.default_rng(count).gamma(3, 1e6, 10 * count)]
    slices = [samples[i * count : (i + 1) * count] for i in range(10)]
    found = summarise(N_IMAGES, 25, slices)
    assert (found.protocol, found.images, found.n) == (N_IMAGES, 25, 10 * count)
    assert found.samples_ns == tuple(samples)
    assert found.min_ns == min(samples)
    assert found.p50_ns == pytest.approx(percentile(samples, 50))
    assert found.p90_ns == pytest.approx(percentile(samples, 90))
    assert found.p99_ns == pytest.approx(percentile(samples, 99))
    assert found.mean_ns == pytest.approx(statistics.fmean(samples))
    assert found.std_ns == pytest.approx(statistics.pstdev(samples))
    assert found.throughput == pytest.approx(25e9 / percentile(samples, 50))
    medians = [statistics.median(part) for part in slices]
    assert found.spread == pytest.approx((max(medians) - min(medians)) / percentile(samples, 50))


def test_a_machine_that_slows_down_is_called_unstable():
    drifting = [[1000 + 40 * turn] * 5 for turn in range(10)]
    steady = [[1000, 1050, 1000, 3000, 1000] for _ in range(10)]
    assert summarise(ONE_IMAGE, 1, drifting).unstable
    assert not summarise(ONE_IMAGE, 1, steady).unstable  # single slow calls are noise, not drift


@pytest.mark.parametrize(("factor", "unstable"), [(1.14, False), (1.16, True)])
def test_the_border_of_stability(factor, unstable):
    slices = [[100_000] * 9] * 9 + [[int(100_000 * factor)] * 9]
    assert summarise(ONE_IMAGE, 1, slices).unstable is unstable


LIMIT = TimeLimit("m.onnx", BundleError)


def test_contenders_take_turns_and_change_who_goes_first():
    order = []
    calls = [lambda name=name: order.append(name) for name in "abc"]
    ticks = []
    found = latency._interleaved(ONE_IMAGE, 1, calls, 3 * [LIMIT], 1e-9, 1, lambda: ticks.append(0))
    warm, timed = order[:3], order[3:]
    assert warm == list("abc")
    assert timed == (list("abc") + list("cba")) * (ROUNDS // 2)
    assert [part.n for part in found] == [ROUNDS] * 3
    assert len(ticks) == 30


@pytest.mark.parametrize(("least", "expected"), [(1, 10), (10, 10), (11, 20), (30, 30), (99, 100)])
def test_never_fewer_samples_than_asked_for(least, expected):
    found = latency._interleaved(ONE_IMAGE, 1, [lambda: None], [LIMIT], 1e-9, least, latency._tick(10, None))
    assert found[0].n == expected


def test_time_is_filled_when_calls_are_fast():
    found = latency._interleaved(ONE_IMAGE, 1, [lambda: None], [LIMIT], 0.02, 1, latency._tick(10, None))
    assert found[0].n > 100


@pytest.fixture(scope="module")
def contenders(dense_sealed, sealed):
    return [Contender("dense", open_bundle(dense_sealed)), Contender("sparse", open_bundle(sealed))]


@pytest.fixture(scope="module")
def timed(contenders):
    """One real bench, its baseline the second bundle, with what it called on the way."""
    batches, progress, real = [], [], OnnxRuntime.infer_impl

    def infer_impl(self, images):
        batches.append(images.copy())
        return real(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxRuntime, "infer_impl", infer_impl)
        result = bench(
            contenders,
            baseline=1,
            images=150,
            seconds=0.02,
            progress=lambda done, total: progress.append((done, total)),
        )
    return result, batches, progress


def test_every_bundle_has_both_protocols_and_its_own_facts(timed, contenders):
    result, _, _ = timed
    assert [entry.label for entry in result.entries] == ["dense", "sparse"]
    for entry, contender in zip(result.entries, contenders, strict=True):
        manifest = contender.bundle.manifest
        assert [part.protocol for part in entry.latencies] == [ONE_IMAGE, N_IMAGES]
        assert [part.images for part in entry.latencies] == [1, 150]
        assert all(len(part.samples_ns) == part.n >= 10 for part in entry.latencies)
        assert entry.latencies[0].n >= 30
        assert entry.artifact_bytes == contender.bundle.artifact_path.stat().st_size
        assert entry.artifact_sha256 == manifest.artifact.sha256
        assert entry.keep == manifest.sparsity.nonzero / manifest.sparsity.weights
        assert entry.runtime.provider == "CPUExecutionProvider"
        assert entry.max_logit_error <= 1e-4
        start = entry.cold_start
        assert start.load_ns > start.first_ns > 0
        assert 10 << 20 < start.peak_rss_bytes < 2 << 30


def test_speed_up_is_the_ratio_of_medians_to_the_baseline(timed):
    result, _, _ = timed
    dense, sparse = result.entries
    assert result.baseline == "sparse"
    assert sparse.speedup == {ONE_IMAGE: 1.0, N_IMAGES: 1.0}
    for i, protocol in enumerate((ONE_IMAGE, N_IMAGES)):
        assert dense.speedup[protocol] == sparse.latencies[i].p50_ns / dense.latencies[i].p50_ns


def test_stored_images_repeat_until_there_are_n(timed, golden):
    _, batches, _ = timed
    many = [batch for batch in batches if len(batch) == 150]
    expected = np.concatenate([golden.clean, golden.clean, golden.clean[:30]])
    assert len(many) > 20
    assert all(np.array_equal(batch, expected) for batch in many)


def test_single_images_are_another_one_each_time(timed, golden):
    _, batches, _ = timed
    single = {batch.tobytes() for batch in batches if len(batch) == 1}
    assert len(single) > 30
    assert single <= {image[None].tobytes() for image in golden.clean}


def test_progress_counts_every_slice(timed):
    _, _, progress = timed
    assert progress == [(i + 1, 4 * ROUNDS) for i in range(4 * ROUNDS)]


def test_logits_other_than_the_golden_ones_are_not_timed(write_bundle, make_golden, linear, tmp_path):
    golden = make_golden(linear)
    other = dataclasses.replace(golden, clean_logits=golden.clean_logits * np.float32(1.001))
    folder = write_bundle(tmp_path / "b", golden=other)
    with pytest.raises(BundleError, match="the timed model is not the exported one"):
        bench([Contender("other", open_bundle(folder))], seconds=0.01)


def test_in_8_bits_few_images_may_be_far_off(write_bundle, make_golden, linear, forge, tmp_path):
    """As `verify` allows."""
    golden = make_golden(linear)
    for wrong in (1, len(golden.labels) // 2):
        logits = golden.clean_logits.copy()
        logits[-wrong:] += np.abs(logits).max()
        folder = write_bundle(tmp_path / f"b{wrong}", golden=dataclasses.replace(golden, clean_logits=logits))
        forge(folder, lambda manifest: manifest["artifact"].update(precision="int8"))
        with pytest.raises(BundleError, match="not the exported one") if wrong > 1 else contextlib.nullcontext():
            bench([Contender("int8", open_bundle(folder))], images=1, seconds=0.01)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_batch_that_is_timed_and_answers_otherwise_is_not_timed(contenders, batch, monkeypatch):
    """All golden images at once come out right; a single one, or n, would be fast and wrong."""
    real = OnnxRuntime.infer_impl
    other = lambda self, images: real(self, images) * np.float32(len(images) != batch)  # noqa: E731
    monkeypatch.setattr(OnnxRuntime, "infer_impl", other)
    with pytest.raises(BundleError, match="the timed model is not the exported one"):
        bench(contenders[:1], images=7, seconds=0.01)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, "images must be at least 1, not 0"),
        ({"images": 10**12}, "images is 1000000000000, which take 1.28e"),
        ({"seconds": 0}, "seconds must be above 0"),
        ({"seconds": -1.0}, "seconds must be above 0"),
        ({"seconds": math.nan}, "seconds must be above 0"),
        ({"seconds": math.inf}, "seconds must be above 0"),
        ({"min_samples": 0}, "min_samples must be at least 1"),
        ({"contenders": []}, "there is no bundle to time"),
    ],
)
def test_counts_that_time_nothing_are_refused(contenders, wrong, message):
    with pytest.raises(InputError, match=message):
        bench(**{"contenders": contenders, **wrong})


def test_a_bundle_that_does_not_start_is_named(bundle):
    contender = Contender("gone", open_bundle(bundle))
    (bundle / "labels.txt").unlink()
    with pytest.raises(BackendUnavailable, match=r"does not start: .*labels\.txt is missing") as caught:
        bench([contender], seconds=0.01)
    assert "Traceback" not in str(caught.value)


def test_the_fresh_process_imports_nothing_from_the_working_folder(bundle, monkeypatch):
    """A bundle may hold a file of any name; the user may stand in its folder."""
    for name in ("numpy.py", "json.py", "robust_edge_runtimes.py", "onnxruntime.py", "resource.py"):
        (bundle / name).write_text("import pathlib; pathlib.Path('ran').write_text('')\nraise SystemExit(9)\n")
    monkeypatch.chdir(bundle)
    measure_cold_start(open_bundle("."), 1)
    assert not (bundle / "ran").exists()


def test_the_fresh_process_is_this_interpreter(sealed, monkeypatch):
    seen, real = [], cold_start.subprocess.run

    def run(command, **kwargs):
        seen.append(command)
        return real(command, **kwargs)

    monkeypatch.setattr(cold_start.subprocess, "run", run)
    start = measure_cold_start(open_bundle(sealed), 2)
    assert seen[0][0] == sys.executable
    assert seen[0][-3:] == [str(sealed), "2", str(os.getpid())]
    assert start.load_ns > 0


def test_a_bundle_with_a_fixed_path_of_odd_letters(sealed, tmp_path):
    folder = shutil.copytree(sealed, tmp_path / "a b'c;ε")
    assert measure_cold_start(open_bundle(folder), 1).first_ns > 0


def test_bundles_of_one_name_are_told_apart(sealed, tmp_path):
    for folder in ("a", "b"):
        shutil.copytree(sealed, tmp_path / folder / "bundle")
    paths = [tmp_path / "a/bundle", tmp_path / "b/bundle"]
    assert [item.label for item in latency.contenders(paths)] == [str(path) for path in paths]
    assert [item.label for item in latency.contenders(paths[:1])] == ["bundle"]
    with pytest.raises(InputError, match="twice"):
        latency.contenders([paths[0], paths[0]])


def test_a_fixed_batch_is_timed_by_its_calls(write_bundle, tmp_path):
    folder = write_bundle(tmp_path / "eight", batch=8)
    (entry,) = bench([Contender("eight", open_bundle(folder))], images=20, seconds=0.02).entries
    assert entry.fixed_batch == 8
    assert [part.images for part in entry.latencies] == [1, 20]
    assert entry.cold_start.first_ns > 0


def test_the_harness_is_weighed_against_the_fastest(timed):
    result, _, _ = timed
    ones = {entry.label: entry.latencies[0].p50_ns for entry in result.entries}
    harness = result.harness
    assert ones[harness.fastest] == min(ones.values())
    assert harness.share == harness.call_ns / min(ones.values())
    assert harness.heavy == (harness.share > 0.02)


class Steady(Meter):
    """Ten microjoules a call of `work`'s, whatever it does."""

    name, whole_board = "steady", False

    def __init__(self, joules):
        self.given = joules

    def joules(self, work):
        work()
        return self.given


@pytest.mark.parametrize(("joules", "reason"), [(6.0, None), (0.0, "did not change")])
def test_energy_stands_beside_both_protocols(contenders, monkeypatch, joules, reason):
    counts, real = [], energy.repeat

    def repeat(call, seconds):
        counts.append(real(call, 0))
        return 4

    monkeypatch.setattr(energy, "repeat", repeat)
    (entry,) = bench(contenders[:1], images=5, seconds=0.01, meter=Steady(joules)).entries
    found = [part.joules_per_image for part in entry.latencies]
    if reason is None:
        assert found == [pytest.approx(6 / 4), pytest.approx(6 / 4 / 5)]
        assert entry.energy == EnergySource("steady", None)
    else:
        assert found == [None, None]
        assert reason in entry.energy.reason
    assert counts == [1, 1]


def test_without_a_counter_there_is_a_reason(contenders):
    (entry,) = bench(contenders[:1], seconds=0.01, meter="no counter here").entries
    assert {part.joules_per_image for part in entry.latencies} == {None}
    assert entry.energy == EnergySource(None, "no counter here")


def test_every_named_bundle_over_the_budget_is_told_with_value_and_budget(contenders):
    result = bench(contenders, seconds=0.01, max_p90_ms=1e-6)
    assert not result.passed
    for line, entry in zip(result.over_budget, result.entries, strict=True):
        p90 = f"{entry.latencies[0].p90_ns / 1e6:.3f} ms"
        assert line.startswith(f"{entry.label}: p90 of one image is {p90}, the budget 1e-06 ms")


def test_a_budget_that_is_met_and_baselines_that_need_not_meet_it(contenders):
    assert bench(contenders, seconds=0.01, max_p90_ms=1e4).over_budget == ()
    baseline = dataclasses.replace(contenders[0], baseline_only=True)
    result = bench([baseline, contenders[1]], seconds=0.01, max_p90_ms=1e-6)
    assert [line.split(":")[0] for line in result.over_budget] == ["sparse"]


@pytest.mark.parametrize("budget", [0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_no_time_is_refused(contenders, budget):
    with pytest.raises(InputError, match="max_p90_ms, the latency budget"):
        bench(contenders, seconds=0.01, max_p90_ms=budget)


def test_a_result_of_an_older_version_is_still_read(timed):
    value = json.loads(json.dumps(dataclasses.asdict(timed[0])))
    for name in ("harness", "max_p90_ms", "over_budget"):
        del value[name]
    for entry in value["entries"]:
        del entry["fixed_batch"], entry["energy"]
        for part in entry["latencies"]:
            del part["joules_per_image"]
    read = decode(Bench, value)
    assert (read.harness, read.passed, read.entries[0].energy) == (None, True, None)
