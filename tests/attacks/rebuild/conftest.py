"""Two networks on a part of the digits, trained once; each target is exported once and rebuilt once."""

from __future__ import annotations

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"bundles are made, changed and judged with {needed}")


from robust_edge.config.export import ExportChoices, GoldenSettings  # noqa: E402
from robust_edge.config.settings import resolve  # noqa: E402
from robust_edge.export import export_run  # noqa: E402
from robust_edge.run.directory import open_run  # noqa: E402
from robust_edge.training.compress import compress  # noqa: E402
from robust_edge.verification.settings import VerifySettings  # noqa: E402
from robust_edge.verification.verify import verify_bundle  # noqa: E402
from robust_edge_exporters.target import target_named  # noqa: E402
from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.verdict.measurement import Budget  # noqa: E402
from tests.attacks.forgery import forged  # noqa: E402

SETTINGS = {
    "data.limit_train": 300, "data.limit_test": 60, "training.epochs": 3, "training.batch_size": 50, "training.lr": 0.1,
    "attack.steps": 2, "pruning.keep": 0.3, "pruning.scope": "layer", "threads": 1, "device": "cpu",
}  # fmt: skip
GOLDEN = GoldenSettings(images=60, steps=1)
TARGETS = {
    "fp32": ("x86-cpu", None),
    "int8": ("x86-cpu-int8", None),
    "csr": ("x86-cpu-csr", None),
    "native": ("x86-cpu-sparse", None),
    "native fp16": ("x86-cpu-sparse", "fp16"),
    "nvidia fp16": ("nvidia-gpu-onnx", "fp16"),
    "TensorRT int8": ("jetson-gpu", "int8"),
}


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    def train(name, **flags):
        path = tmp_path_factory.mktemp("runs") / name
        compress(resolve(preset="quick", flags={**SETTINGS, **flags}), path)
        return open_run(path)

    return train


@pytest.fixture(scope="package")
def run(trained):
    return trained("run")


@pytest.fixture(scope="package")
def other(trained):
    return trained("other", seed=1)


@pytest.fixture(scope="package")
def honest(run, tmp_path_factory):
    """honest(target's key) -> the run's own bundle, exported once; do not change it."""
    found = {}

    def export(key="fp32"):
        if key not in found:
            name, precision = TARGETS[key]
            found[key] = tmp_path_factory.mktemp("bundles") / "honest"
            choices = ExportChoices(precision=precision)
            export_run(run, target_named(name), found[key], golden=GOLDEN, choices=choices)
        return found[key]

    return export


@pytest.fixture
def verified(run):
    """verified(path) -> (the verdict of `replay` and `rebuild`, the names of its reasons)."""

    def verify(path, **changes):
        settings = VerifySettings(modes=("replay", "rebuild"), **changes)
        verdict = verify_bundle(bundles.open_bundle(path), run, Budget(), settings)
        return verdict, {reason.partition(":")[0] for reason in verdict.reasons}

    return verify


@pytest.fixture
def changed(honest, tmp_path):
    """changed(key, change) -> a copy of the honest bundle that `change(folder)` has changed, sealed again."""

    return lambda key, change: forged(honest(key), tmp_path / "bundle", change)


def differs(verdict, *words):
    """Whether the rebuild found a difference, and one of its lines has all of these words."""
    assert verdict.rebuild is not None
    assert not verdict.rebuild.equal
    lines = [line for line in verdict.rebuild.differences if all(word in line for word in words)]
    assert lines, verdict.rebuild.differences
    return lines
