from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys

import pytest

from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core.golden import GOLDEN, expected_of, write_golden
from robust_edge_runtimes.load import load

_watchers = []


def _hook(event, arguments):
    if _watchers and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        for seen in _watchers:
            seen.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_hook)  # stays for the life of the process, and does nothing while nobody watches


@pytest.fixture
def watch():
    """`with watch() as seen:` collects the real path of every file that the process opens."""

    @contextlib.contextmanager
    def watching():
        seen = []
        _watchers.append(seen)
        try:
            yield seen
        finally:
            _watchers.remove(seen)

    return watching


DATA = """
import torch
from robust_edge.data import Dataset, Split
from robust_edge.data.digits import load_digits

def build(config):
    digits = load_digits(config)
    def coloured(split):
        grey = split.images
        return Split(torch.cat([grey, grey // 2, 16 - grey], 1), split.labels, split.levels)
    return Dataset("coloured digits", digits.classes, coloured(digits.train), coloured(digits.test))
"""
SETTINGS = {
    "data.dataset": "coloured_digits:build", "threads": 1, "device": "cpu", "attack.eps": 0.1, "attack.steps": 3,
    "training.epochs": 6, "training.batch_size": 50, "training.lr": 0.1, "pruning.keep": 0.5,
    "pruning.scope": "layer",
}  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Holds everything, and the module that the data come from."""
    path = tmp_path_factory.mktemp("false")
    (path / "coloured_digits.py").write_text(DATA)
    sys.path.insert(0, str(path))
    yield path
    sys.path.remove(str(path))
    sys.modules.pop("coloured_digits", None)


@pytest.fixture(scope="session")
def trained(folder):
    """trained(name, **changes) -> a finished run."""

    from robust_edge.config.settings import resolve
    from robust_edge.run.directory import open_run
    from robust_edge.training.compress import compress

    def train(name, **changes):
        flags = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
        compress(resolve(preset="quick", flags=flags), folder / name)
        return open_run(folder / name)

    return train


@pytest.fixture(scope="session")
def robust(trained):
    return trained("robust")


@pytest.fixture(scope="session")
def benign(trained):
    return trained("benign", attack__eps=0.0, training__epochs=4)


@pytest.fixture(scope="session")
def exported(robust, folder):
    """exported(target) -> the robust network's own bundle, exported once; do not change it."""
    from robust_edge.config.export import GoldenSettings
    from robust_edge.export import export_run
    from robust_edge_exporters.target import target_named

    def export(target):
        path = folder / "exported" / target
        if not path.exists():
            export_run(robust, target_named(target), path, golden=GoldenSettings(images=200, steps=10))
        return path

    return export


@pytest.fixture(scope="session")
def honest(exported):
    """The robust network's own bundle for the plain target; do not change it."""
    return exported("x86-cpu")


@pytest.fixture(scope="session")
def export_again(tmp_path_factory):
    """`write_artifact`, which writes what it wrote before of the same checkpoint with the same choices."""
    from robust_edge.verification import new_export

    found, real = {}, new_export.write_artifact

    def write(request, folder):
        calibration = None if request.calibration is None else request.calibration.tobytes()
        choices = (request.target, request.precision, request.batch, request.options, request.layer_forms)
        key = (repr((*choices, request.compact, request.ranges, request.source.checkpoint_sha256)), calibration)
        if key not in found:
            path = tmp_path_factory.mktemp("again") / "built"
            path.mkdir()
            found[key] = path, real(request, path)
        shutil.copytree(found[key][0], folder, dirs_exist_ok=True)
        return found[key][1]

    return write


@pytest.fixture(autouse=True)
def _rebuild_once(request, monkeypatch):
    """Whatever is changed in a bundle, its run is exported again once for all tests."""
    if {"robust", "run"} & set(request.fixturenames):
        from robust_edge.verification import new_export

        monkeypatch.setattr(new_export, "write_artifact", request.getfixturevalue("export_again"))


@pytest.fixture(scope="session")
def programs(honest, benign, folder):
    """The honest artifact, and that of a network that was trained without attacks."""
    import onnx

    from robust_edge.config.export import GoldenSettings
    from robust_edge.export import export_run
    from robust_edge_exporters.target import target_named

    golden = GoldenSettings(images=60, eps=0.1, steps=1)
    export_run(benign, target_named("x86-cpu"), folder / "benign_bundle", golden=golden)
    folders = {"honest": honest, "benign": folder / "benign_bundle"}
    return lambda name="honest": onnx.load(str(folders[name] / "model.onnx"))


def counted(path, manifest):
    """The manifest with the non-zeros that the artifact in the folder has; a wrong number is found out at once."""
    from robust_edge_exporters.formats.onnx.contents import contents_of

    return dataclasses.replace(manifest, sparsity=contents_of(path / "model.onnx").sparsity)


@pytest.fixture
def false_bundle(honest, tmp_path):
    """false_bundle(program, vouched=False): the honest bundle with another artifact, sealed again.

    Vouched for, its golden logits are the false artifact's own, so that nothing inside the bundle speaks against it.
    """

    def write(program, *, vouched=False):
        path = shutil.copytree(honest, tmp_path / "bundle")
        (path / "model.onnx").write_bytes(program.SerializeToString())
        manifest = counted(path, bundles.open_bundle(honest).manifest)
        bundles.seal(path, manifest)
        if vouched:
            opened = bundles.open_bundle(path)
            golden = opened.golden()
            with load(opened) as model:
                clean, attacked = model.infer(golden.clean), model.infer(golden.attacked)
            names = ("clean_logits", "attacked_logits", "artifact_clean_logits", "artifact_attacked_logits")
            own = dataclasses.replace(golden, **dict(zip(names, (clean, attacked) * 2, strict=True)))
            write_golden(path / GOLDEN, own)
            expected = expected_of(own, manifest.expected.attack)
            bundles.seal(path, dataclasses.replace(manifest, expected=expected))
        return bundles.open_bundle(path)

    return write
