"""What follows from the data, and how it is written."""

import dataclasses

import pytest

from robust_edge.reporting import findings, formats
from robust_edge.reporting.collect import collect
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from tests.robust_edge.reporting.samples import bench_of, written


def test_roles_come_from_the_config(data):
    assert [run.roles for run in data.runs] == [("robust", "sparse"), ("benign", "dense")]


def test_the_suggested_attack_is_that_of_the_robust_run(data):
    assert not findings.attacks_differ(data.runs)
    benign = data.runs[1]
    weaker = dataclasses.replace(benign.result, threat=Threat(8 / 255))
    record = dataclasses.replace(benign.summarised, result=weaker)
    runs = [dataclasses.replace(benign, summarised=record), data.runs[0]]
    assert findings.attacks_differ(runs)
    assert findings.reference_attack(runs).threat.eps == 0.1


def test_the_curve_names_its_attack(data):
    assert findings.curve_attacks(data.runs) == ["PGD-1"]
    record = data.runs[0].rising
    older = dataclasses.replace(record, curve=dataclasses.replace(record.curve, title="", steps=7))
    runs = [dataclasses.replace(data.runs[0], rising=older), data.runs[1]]
    assert findings.curve_attacks(runs) == ["PGD-7", "PGD-1"]


def test_differing_settings_are_found(data):
    found = dict(findings.differing_settings(data.runs))
    assert found == {"attack.eps": ["0.1", "0.0"], "pruning.keep": ["0.1", "1.0"]}


def test_a_speed_up_within_the_spread_is_noise(runs, tmp_path):
    bench = bench_of()
    entry = dataclasses.replace(bench.entries[1], speedup={ONE_IMAGE: 1.02, N_IMAGES: 2.0})
    path = written(dataclasses.replace(bench, entries=(bench.entries[0], entry)), tmp_path / "bench.json")
    (item,) = collect(runs, [], [path]).benches
    assert [(row.speedup, row.noise) for row in findings.timings(item, ONE_IMAGE)] == [(None, False), (1.02, True)]
    assert [(row.speedup, row.noise) for row in findings.timings(item, N_IMAGES)] == [(None, False), (2.0, False)]


@pytest.mark.parametrize(
    ("eps", "text"), [(0.0, "0"), (8 / 255, "8/255"), (0.1, "0.1"), (1 / 15, "0.06667"), (1.0, "1")]
)
def test_radius(eps, text):
    assert formats.radius(eps) == text


@pytest.mark.parametrize(("value", "text"), [(0.04, "0.0"), (-0.04, "0.0"), (0.06, "+0.1"), (-7.3, "−7.3")])
def test_points(value, text):
    assert formats.points(value) == text
