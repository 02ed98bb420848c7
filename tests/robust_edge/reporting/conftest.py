"""Runs that the report's tests show."""

import shutil
from pathlib import Path

import pytest

from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.reporting.collect import collect
from robust_edge.run.directory import open_run


@pytest.fixture(scope="session")
def evaluated(sparse_run, benign_run, tmp_path_factory):
    """Copies of a sparse and a benign run with both evaluations."""
    folder = tmp_path_factory.mktemp("evaluated")
    for source in (sparse_run, benign_run):
        run = open_run(Path(shutil.copytree(source.path, folder / source.name)))
        evaluate_run(run, EvaluateSettings(attack="pgd", eps=0.1, steps=2))
        evaluate_run(run, EvaluateSettings(attack="curve", steps=1, limit=30))
    return folder


@pytest.fixture
def runs(evaluated, tmp_path):
    """The same, to be broken: sparse first."""
    folder = Path(shutil.copytree(evaluated, tmp_path / "runs"))
    return [open_run(folder / name) for name in ("sparse", "benign")]


@pytest.fixture
def data(runs):
    return collect(runs, [], [])
