"""Mode `rebuild`: the run exported again with the recorded choices, and compared file by file with the bundle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from robust_edge.config.export import ExportChoices
from robust_edge.export import artifact_request
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge.run.images import dataset_of
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge_exporters.bundle import write_artifact
from robust_edge_exporters.device_files import SCHEMA, write_readme
from robust_edge_exporters.formats.table import format_named
from robust_edge_exporters.target import Target, target_named
from robust_edge_runtimes.core.bundle import MANIFEST, SUMS, Bundle
from robust_edge_runtimes.core.decode import read_json
from robust_edge_runtimes.core.errors import BundleError, RobustEdgeError
from robust_edge_runtimes.core.golden import GOLDEN
from robust_edge_runtimes.core.manifest import Choices, Manifest
from robust_edge_runtimes.formats.table import format_named as format_named_on_device
from robust_edge_runtimes.modes.mode import Progress
from robust_edge_runtimes.verdict.measurement import Parity, Rebuild

DEFAULTS = Choices(compact=True, calibration=ExportChoices.calibration)
ASSUMED = "the manifest records no choices of the export: those that are the default were assumed"
CACHED = "the bundle's folder holds __pycache__, which running run.py leaves; delete it before the folder ships"
NO_README = "README.md is not compared: the manifest records no parity, which it names"
OTHER_RELEASE = "another release of robust-edge, whose scripts may be others: export the bundle again with this one"
OTHER_SCHEMA = "manifest.schema.json is that of another release of robust-edge, and is not compared"
IMPORTABLE = {".py", ".pyc", ".so", ".pyd", ".pth"}
"""Files that Python would import from the folder of run.py instead of an installed package."""


def rebuild(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Rebuild:
    """Compare the bundle with a new export of the run."""
    run, network = subject.run, subject.network
    assert run is not None, "the mode's row says that it needs a run"
    assert network is not None, "and a run has a network"
    return compare_with_run(subject.bundle, run, network, settings.data_dir)


def compare_with_run(bundle: Bundle, run: Run, network: nn.Module, data_dir: str | None) -> Rebuild:
    """Export the run into a temporary folder, and compare every file of the bundle that does not hold images.

    Nothing of the bundle is executed. Files that no export writes are differences, too.

    Args:
        bundle: opened.
        run: what it claims to be exported from.
        network: the run's, as loaded.
        data_dir: where the run's images lie now, if elsewhere; int8 needs them.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch)
        try:
            notes = _export(bundle, run, network, data_dir, built)
        except RobustEdgeError as cause:
            return Rebuild(False, (f"the run cannot be exported again: {cause}",), (), time.monotonic() - start)
        names = sorted(file.relative_to(built).as_posix() for file in built.rglob("*") if file.is_file())
        other_release = _is_of_another_release(built / SCHEMA, bundle.path / SCHEMA)
        if other_release:
            names.remove(SCHEMA)
            notes = (*notes, OTHER_SCHEMA)
        differences = format_named(bundle.manifest.artifact.format).differences(built, bundle.path, names)
    differences += _unknown_files(bundle, (*names, SCHEMA))
    versions = ((OTHER_RELEASE,) if other_release else ()) + _versions(bundle.manifest)
    return Rebuild(not differences, tuple(differences), tuple(names), time.monotonic() - start, versions, notes)


def _export(bundle: Bundle, run: Run, network: nn.Module, data_dir: str | None, folder: Path) -> tuple[str, ...]:
    """Write all files but those with images; returns notes on what was assumed and left out."""
    manifest = bundle.manifest
    target = _target(manifest)
    recorded = manifest.choices or DEFAULTS
    choices = ExportChoices(
        precision=manifest.artifact.precision,
        batch=manifest.input.shape[0],
        options=recorded.options,
        layer_forms={layer.name: layer.form for layer in manifest.layers},
        compact=recorded.compact,
        calibration=recorded.calibration,
        compile_library=False,
    )
    request = artifact_request(run, network, target, choices, lambda: dataset_of(run, data_dir).train)
    artifact = write_artifact(request, folder).artifact
    notes = _assumptions(bundle)
    if manifest.parity is None:
        return (*notes, NO_README)
    parity = Parity(manifest.parity.max_logit_error, manifest.parity.tolerance, manifest.parity.argmax_agreement)
    write_readme(folder, target, request.source, manifest.expected, artifact, parity)
    return notes


def _is_of_another_release(ours: Path, theirs: Path) -> bool:
    """Whether the schema beside the manifest is one that another release writes."""
    if not theirs.is_file() or ours.read_bytes() == theirs.read_bytes():
        return False
    schema = read_json(theirs, BundleError)
    return isinstance(schema, dict) and schema.get("title") == read_json(ours).get("title")


def _target(manifest: Manifest) -> Target:
    """The row that the bundle names, in the opset that it names."""
    target, opset = target_named(manifest.target), manifest.artifact.opset
    return target if opset in (None, target.opset) else target.with_opset(opset)


def _assumptions(bundle: Bundle) -> tuple[str, ...]:
    """Notes on choices that are not recorded, or not the usual ones, and on files that are not compared."""
    recorded, notes = bundle.manifest.choices, []
    if recorded is None:
        notes.append(ASSUMED)
    elif recorded.calibration not in (0, DEFAULTS.calibration):
        notes.append(f"ranges of int8 come from {recorded.calibration} images, by default {DEFAULTS.calibration}")
    if any(bundle.path.rglob("__pycache__")):
        notes.append(CACHED)
    return tuple(notes)


def _unknown_files(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Files beside the exported ones that the manifest lists, or that Python would import; and another artifact."""
    manifest = bundle.manifest
    compiled = format_named_on_device(manifest.artifact.format).compiled_files(manifest.files)
    beside = (file for file in bundle.path.rglob("*") if file.suffix in IMPORTABLE or file.is_symlink())
    paths = [file.relative_to(bundle.path) for file in beside]
    found = {*manifest.files, *(path.as_posix() for path in paths if "__pycache__" not in path.parts)}
    unknown = sorted(found - {*names, *compiled, GOLDEN, MANIFEST, SUMS, "README.md"})
    lines = [f"{name} is in the bundle, and no export writes it" for name in unknown]
    others = [name for name in manifest.artifact.files if name not in (*names, *compiled)]
    return lines + [f"{MANIFEST} says that {name} is the artifact or a part of it" for name in others]


def _versions(manifest: Manifest) -> tuple[str, ...]:
    """Packages of another version than at export."""
    here = versions()
    return tuple(
        f"{name} {version}, here {here.get(name, 'none')}"
        for name, version in sorted(manifest.source.versions.items())
        if here.get(name) != version
    )
