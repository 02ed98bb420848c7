"""The same commands on a folder of JPEGs and a ResNet18: the machinery, not the accuracy."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from robust_edge.cli import main
from robust_edge_runtimes import open_bundle
from tests.commands import run

PER_CLASS = 20


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    archive_path = Path(os.environ.get("ROBUST_EDGE_DATA", beside)) / "cifar10-jpeg.tar.xz"
    if not archive_path.is_file():
        pytest.skip(f"{archive_path} is missing; name the folder of cifar10-jpeg.tar.xz in ROBUST_EDGE_DATA")
    root = tmp_path_factory.mktemp("cifar")
    with tarfile.open(archive_path) as archive:
        for member in archive:
            if member.isfile() and int(Path(member.name).stem) < PER_CLASS:
                archive.extract(member, root, filter="data")
    return root


def test_resnet18_through_export_verify_and_bench(cifar: Path, tmp_path: Path) -> None:
    small = ["--epochs", "2", "--steps", "1", "--set", "data.resize=16", "--set", "training.batch_size=20"]
    small += ["--set", "data.limit_train=40", "--set", "data.limit_test=50"]
    flags = ["--dataset", "folder", "--data-dir", cifar, "--arch", "resnet18", "--keep", "0.1", "--eps", "8/255"]
    source, bundle = tmp_path / "run", tmp_path / "bundle"
    run("robust-edge", "compress", *flags, *small, "-o", source)
    run("robust-edge", "export", source, "--target", "x86-cpu", "--steps", "1", "-o", bundle)
    counts = open_bundle(bundle).manifest.sparsity
    assert counts.nonzero == round(0.1 * counts.weights)
    words = ["verify", bundle, "--against", source, "--mode", "replay", "--mode", "rebuild", "--json"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    verdict = json.loads(done.stdout)
    assert done.exit_code in (0, 5), done.output  # after two epochs the network may have no robustness to lose
    assert verdict["reasons"] == []
    assert verdict["rebuild"]["equal"]
    timed = json.loads(run("robust-edge", "bench", bundle, "--images", "4", "--seconds", "0.1", "--json").stdout)
    assert [entry["keep"] for entry in timed["entries"]] == [1.0, pytest.approx(0.1, abs=1e-6)]
