"""Export a run again with the choices that a bundle records, and compare the result with the bundle file by file."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from robust_edge.config.export import ExportChoices
from robust_edge.export import artifact_request
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge.run.images import dataset_of
from robust_edge.verification.claims import target_of
from robust_edge_exporters.bundle import ArtifactRequest, WrittenArtifact, manifest_of, size_of, write_artifact
from robust_edge_exporters.device_files import SCHEMA, write_readme
from robust_edge_exporters.formats.onnx.differences import SCALE
from robust_edge_exporters.formats.table import format_named
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import MANIFEST, SUMS, Bundle
from robust_edge_runtimes.core.decode import read_json, short_repr, visible
from robust_edge_runtimes.core.errors import BundleError, RobustEdgeError
from robust_edge_runtimes.core.files import json_text
from robust_edge_runtimes.core.golden import GOLDEN
from robust_edge_runtimes.core.manifest import Choices, ExportParity, Manifest
from robust_edge_runtimes.formats.table import format_named as format_named_on_device
from robust_edge_runtimes.verdict.measurement import Parity, Rebuild

NO_PARITY = f"{MANIFEST}: parity is missing, which every export records"
OTHER_RELEASE = "another release of robust-edge, whose scripts may be others: export the bundle again with this one"
OWN = ("artifact", "expected", "files", "parity", "size")
"""Fields of the manifest that are compared elsewhere: hashes of files, and figures that are measured on images."""
MISSING = "missing"  # in the line on a key that only one of two mappings has; its value may be None
FREE, FREE_PER_LAYER = 2000, 50  # characters of a manifest that only the exporting machine knows
GRAPH_PACKAGES = (
    "torch", "onnxscript", "onnx", "onnx-ir", "onnxruntime", "numpy", "torchvision", "torch-pruning", "scipy",
    "robust-edge",
)  # fmt: skip
"""Packages that an export uses, those that make the graph first; other versions of others change no file."""
COMPRESSED = 0.02  # relative difference that another version of zlib may make


def compare_with_run(bundle: Bundle, run: Run, network: nn.Module, data_dir: str | None) -> Rebuild:
    """Export the run into a temporary folder, and compare everything in the bundle that does not depend on images.

    Nothing of the bundle is executed. Files that no export writes are differences, too.

    Args:
        bundle: opened, with recorded choices (`check_claims`).
        run: the run that the bundle claims to be exported from.
        network: the run's network, as loaded.
        data_dir: folder of the run's images if they were moved; int8 needs them for calibration.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch)
        try:
            manifest, notes = _export(bundle, run, network, data_dir, built)
        except RobustEdgeError as cause:
            return Rebuild(False, (f"the run cannot be exported again: {cause}",), (), time.monotonic() - start)
        names = sorted(file.relative_to(built).as_posix() for file in built.rglob("*") if file.is_file())
        other_release = _is_of_another_release(built / SCHEMA, bundle.path / SCHEMA)
        differences = format_named(bundle.manifest.artifact.format).differences(built, bundle.path, names)
    differences += [*_unknown_files(bundle, names), *_manifest_differences(bundle, manifest)]
    versions = ((OTHER_RELEASE,) if other_release else ()) + _versions(bundle.manifest)
    return Rebuild(not differences, tuple(differences), tuple(names), time.monotonic() - start, versions, notes)


def _export(
    bundle: Bundle, run: Run, network: nn.Module, data_dir: str | None, folder: Path
) -> tuple[Manifest, tuple[str, ...]]:
    """Write all files except those with images; return the manifest, and notes on unusual choices."""
    manifest = bundle.manifest
    target = _target(manifest)
    recorded = manifest.choices
    assert recorded is not None, "`check_claims` has refused the bundle otherwise"
    choices = ExportChoices(
        precision=manifest.artifact.precision,
        batch=manifest.input.shape[0],
        options=recorded.options,
        layer_forms={layer.name: layer.form for layer in manifest.layers},
        compact=recorded.compact,
        calibration=recorded.calibration,
        held_out=recorded.held_out,
        calibration_method=recorded.calibration_method,
        compile_library=False,
    )
    request = artifact_request(run, network, target, choices, lambda: dataset_of(run, data_dir).train)
    written = _with_ranges_of(bundle, request, write_artifact(request, folder), folder)
    parity = manifest.parity or ExportParity(0.0, 1.0, 0.0, "")
    figures = Parity(parity.max_logit_error, parity.tolerance, parity.argmax_agreement)
    write_readme(folder, target, request.source, manifest.expected, written.artifact, figures)
    own = manifest_of(request, manifest.expected, written, folder)
    size = size_of(bundle.path, manifest.artifact.files, written.artifact.weights_file, request.sparsity.weights)
    own = dataclasses.replace(own, size=size)
    return own, _unusual(recorded)


def _with_ranges_of(
    bundle: Bundle, request: ArtifactRequest, written: WrittenArtifact, folder: Path
) -> WrittenArtifact:
    """Write the artifact again with the ranges of 8 bits that the bundle records, if only rounding is between them.

    Kernels of another CPU change the last digit of what calibration images give, and a format whose integers follow
    from the ranges would differ everywhere.
    """
    kind = format_named(request.target.format)
    measured, recorded = kind.ranges(folder), kind.ranges(bundle.path)
    if measured is None or recorded is None or recorded == measured or not _same_ranges(measured, recorded):
        return written
    return write_artifact(dataclasses.replace(request, ranges={**recorded, **(request.ranges or {})}), folder)


def _same_ranges(measured: Mapping[str, tuple[float, float]], recorded: Mapping[str, tuple[float, float]]) -> bool:
    if set(measured) != set(recorded):
        return False
    return all(
        abs(one - other) <= SCALE * max(map(abs, measured[name]))
        for name in measured
        for one, other in zip(measured[name], recorded[name], strict=True)
    )


def _manifest_differences(bundle: Bundle, own: Manifest) -> list[str]:
    """List the fields of the manifest that differ from those of the new export.

    Fields that only the exporting machine knows are ignored: the run's folder, versions and measured times.
    """
    manifest = bundle.manifest
    found = [] if manifest.parity is not None else [NO_PARITY]
    fields = [field.name for field in dataclasses.fields(Manifest) if field.name not in OWN]
    for name in fields:
        claimed, true = (_without_times(name, getattr(item, name)) for item in (manifest, own))
        if claimed != true:
            found.append(f"{MANIFEST}: {_first_difference(name, claimed, true)}")
    return [*found, *_size_differences(manifest, own), *_hidden_in_manifest(bundle, own)]


def _hidden_in_manifest(bundle: Bundle, own: Manifest) -> Iterable[str]:
    """Whether the file holds more than its fields, or longer texts and numbers than any export writes."""
    manifest, data = bundle.manifest, (bundle.path / MANIFEST).read_bytes()
    like = dataclasses.replace(own, artifact=manifest.artifact, files=manifest.files)
    longest = len(json_text(like.to_json())) + FREE + FREE_PER_LAYER * len(own.layers)
    if data != json_text(manifest.to_json()).encode():
        yield f"{MANIFEST} holds its fields in another way than an export writes them, for example with more blanks"
    elif len(data) > longest:
        yield f"{MANIFEST} has {len(data)} bytes, an export writes at most {longest}"


def _without_times(name: str, value: Any) -> Any:
    if name == "layers":
        return [dataclasses.asdict(dataclasses.replace(layer, csr_ns=None, dense_ns=None)) for layer in value]
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    if name == "source":
        return {key: item for key, item in plain.items() if key not in ("run", "versions")}
    return plain


def _first_difference(name: str, claimed: Any, true: Any) -> str:
    """Describe the innermost place at which two values differ."""
    if isinstance(claimed, dict) and isinstance(true, dict):
        pairs = ((key, [(key in item, item.get(key)) for item in (claimed, true)]) for key in (*true, *claimed))
        key = next(key for key, (one, other) in pairs if one != other)
        return _first_difference(f"{name}.{key}", claimed.get(key, MISSING), true.get(key, MISSING))
    if isinstance(claimed, (list, tuple)) and isinstance(true, (list, tuple)) and len(claimed) == len(true):
        index = next(i for i, pair in enumerate(zip(claimed, true, strict=True)) if pair[0] != pair[1])
        return _first_difference(f"{name}[{index}]", claimed[index], true[index])
    return f"{name} is {short_repr(claimed)} instead of {short_repr(true)}"


def _size_differences(manifest: Manifest, own: Manifest) -> list[str]:
    claimed, true = manifest.size, own.size
    assert true is not None, "an export records it"
    if claimed is None:
        return [f"{MANIFEST}: size is missing, which every export records"]
    close = abs(claimed.compressed - true.compressed) <= COMPRESSED * true.compressed
    if close and dataclasses.replace(claimed, compressed=true.compressed) == true:
        return []
    return [f"{MANIFEST}: {_first_difference('size', dataclasses.asdict(claimed), dataclasses.asdict(true))}"]


def _is_of_another_release(ours: Path, theirs: Path) -> bool:
    """Whether the schema in the bundle is that of another release of robust-edge."""
    if not theirs.is_file() or ours.read_bytes() == theirs.read_bytes():
        return False
    try:
        schema = read_json(theirs, BundleError)
    except BundleError:  # the comparison of the files names the difference
        return False
    return isinstance(schema, dict) and schema.get("title") == read_json(ours).get("title")


def _target(manifest: Manifest) -> Target:
    """The row of the bundle's target, with the bundle's opset."""
    target, opset = target_of(manifest), manifest.artifact.opset
    return target if opset in (None, target.opset) else target.with_opset(opset)


def _unusual(recorded: Choices) -> tuple[str, ...]:
    """Notes on recorded choices that are not those of most exports."""
    if recorded.calibration in (0, ExportChoices.calibration):
        return ()
    return (f"ranges of int8 come from {recorded.calibration} images, by default {ExportChoices.calibration} or all",)


def _unknown_files(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Files in the folder that no export writes, listed or not; and another artifact."""
    manifest = bundle.manifest
    compiled = format_named_on_device(manifest.artifact.format).compiled_files(manifest.files)
    found, unreadable = set(manifest.files), []
    for folder, folders, files in os.walk(bundle.path, onerror=lambda cause: unreadable.append(str(cause.filename))):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found |= {Path(folder, name).relative_to(bundle.path).as_posix() for name in (*files, *links)}
        found |= set() if folders or files else {f"{Path(folder).relative_to(bundle.path).as_posix()}/"}
    unknown = sorted(found - {*names, *compiled, GOLDEN, MANIFEST, SUMS})
    lines = [f"{visible(name)} is in the bundle, and no export writes it" for name in unknown]
    lines += [f"{visible(name)} cannot be listed, so that files in it are not known" for name in unreadable]
    lines += [
        f"{MANIFEST} leaves {name} out of the artifact" for name in compiled if name not in manifest.artifact.files
    ]
    others = [name for name in manifest.artifact.files if name not in (*names, *compiled)]
    return lines + [f"{MANIFEST} says that {name} is the artifact or a part of it" for name in others]


def _versions(manifest: Manifest) -> tuple[str, ...]:
    """Packages that an export uses and whose version differs from the one at export."""
    here, recorded = versions(), manifest.source.versions
    return tuple(
        f"{name} {short_repr(recorded[name])[1:-1]}, here {here.get(name, 'none')}"
        for name in GRAPH_PACKAGES
        if name in recorded and recorded[name] != here.get(name)
    )
