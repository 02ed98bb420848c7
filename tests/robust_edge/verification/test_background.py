"""The comparison with a new export in a second process gives the same result, and none if it cannot decide."""

from __future__ import annotations

import dataclasses

import pytest

from robust_edge.config.export import GoldenSettings
from robust_edge.export import export_run
from robust_edge.verification.background import BackgroundRebuild
from robust_edge.verification.new_export import compare_with_run
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle


@pytest.fixture(scope="module")
def bundle(sparse_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "csr"
    export_run(sparse_run, target_named("x86-cpu-csr"), path, golden=GoldenSettings(images=20, steps=1))
    return path


def test_the_answer_is_that_of_this_process(bundle, sparse_run):
    """The other process has another order of hashes, too."""
    (bundle / "added").write_text("")
    here = compare_with_run(open_bundle(bundle), sparse_run, sparse_run.load_model(), None)
    with BackgroundRebuild(bundle, sparse_run.path, None) as background:
        found = background.result()
        assert not background.running
    assert here.differences == ("added is in the bundle, and no export writes it",)
    assert dataclasses.replace(found, seconds=here.seconds) == here


def test_a_run_that_cannot_be_opened_is_left_to_the_caller(bundle, tmp_path):
    with BackgroundRebuild(bundle, tmp_path, None) as background:
        assert background.result() is None


def test_leaving_early_ends_the_process(bundle, sparse_run):
    with BackgroundRebuild(bundle, sparse_run.path, None) as background:
        assert background.running
    assert not background.running
