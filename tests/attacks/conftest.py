from __future__ import annotations

import contextlib
import os
import shutil
import sys

import pytest

from robust_edge_runtimes.core import bundle as bundles

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


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """Holds runs and honest bundles."""
    from tests.attacks.workshop import Workshop

    found = Workshop(tmp_path_factory.mktemp("false"))
    with found.importable():
        yield found


@pytest.fixture(scope="session")
def trained(workshop):
    """trained(name of a network) -> its run."""
    return workshop.run


@pytest.fixture(scope="session")
def robust(trained):
    return trained("robust")


@pytest.fixture(scope="session")
def honest(workshop):
    """The robust network's own bundle for the plain target; do not change it."""
    return workshop.bundle()


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


@pytest.fixture
def false_bundle(honest, tmp_path):
    """false_bundle(program, vouched=False): the honest bundle with another artifact, sealed again.

    Vouched for, its golden logits are the false artifact's own, so that nothing inside the bundle speaks against it.
    """
    from tests.attacks import forgery

    def write(program, *, vouched=False):
        path = forgery.forged(honest, tmp_path / "bundle", forgery.program(program))
        return bundles.open_bundle(forgery.vouched(path) if vouched else path)

    return write
