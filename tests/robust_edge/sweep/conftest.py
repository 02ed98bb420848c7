"""Sweeps whose steps are run by stand_in.py, which takes milliseconds."""

import dataclasses
import sys
from pathlib import Path

import pytest

from robust_edge.models.spec import ModelSpec
from robust_edge.run.directory import Arithmetic, Checkpoint
from robust_edge.sweep.grid import CommonSettings, grid_cells, read_axis
from robust_edge.sweep.plan import BENCH, COMPRESS, EXPORT, VERIFY, Plan, Step
from robust_edge_runtimes.core.files import write_json
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity
from tests.robust_edge.reporting.samples import bench_of, verdict_of

CHECKPOINT = Checkpoint(
    model=ModelSpec(arch="small_cnn", shape=(1, 8, 8), classes=("a", "b"), mean=(0.0,), std=(1.0,)),
    sparsity=Sparsity(1000, 100, (LayerCount("weight", 1000, 100),)),
    dataset="digits",
    dataset_fingerprint="f" * 64,
    seed=0,
    metrics={"clean_accuracy": 0.97, "robust_accuracy": 0.8, "attack_eps": 0.1, "attack_steps": 20.0},
    weights_sha256="c" * 64,
    versions={},
    arithmetic=Arithmetic(50_000, 5_000),
)
ALL_STEPS = (Step(COMPRESS), Step(EXPORT, ("--target", "x86-cpu"), "x86-cpu"), Step(VERIFY), Step(BENCH))


class _Run:
    def checkpoint(self):
        return CHECKPOINT


@pytest.fixture(scope="session")
def samples(sealed, opened, tmp_path_factory):
    """What the commands print; a test that changes it changes it back."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "bundle").symlink_to(sealed)
    bench = bench_of()
    entry = dataclasses.replace(bench.entries[1], artifact_sha256=opened.manifest.artifact.identity)
    write_json(folder / "compress.json", dataclasses.asdict(CHECKPOINT))
    write_json(folder / "verify.json", dataclasses.asdict(verdict_of(_Run())))
    write_json(folder / "bench.json", dataclasses.asdict(dataclasses.replace(bench, entries=(bench.entries[0], entry))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMPLES", str(folder))
        yield folder


@pytest.fixture(scope="session")
def plan_of(samples):
    """plan_of(folder, *grid, steps=) -> Plan."""

    def make(folder, *grid, steps=ALL_STEPS):
        axes = tuple(map(read_axis, grid))
        program = (sys.executable, "-E", "-S", str(Path(__file__).with_name("stand_in.py")))
        cells = grid_cells(axes, CommonSettings())
        return Plan(folder=folder, axes=axes, cells=cells, steps=steps, program=program)

    return make
