"""Write bundles: the artifact, golden images for checks, and all files that a device needs.

A bundle is written to a temporary folder and checked there with the same runtime as on the device. Only if it passes
is it renamed to its path.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.compaction.compact import Compacted, compact
from robust_edge_exporters.device_files import write_readme, write_scripts
from robust_edge_exporters.format_option import OptionValue, resolved
from robust_edge_exporters.formats.table import format_named, options_of
from robust_edge_exporters.parity import checked_parity
from robust_edge_exporters.quantisation import QuantisationReport, TooFewBits
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import MANIFEST, SUMS, open_bundle, seal
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.core.folders import check_new_directory, new_directory
from robust_edge_runtimes.core.golden import GOLDEN, Golden, write_golden
from robust_edge_runtimes.core.manifest import (
    NO_IMAGES,
    SCHEMA_VERSION,
    Artifact,
    Choices,
    Companion,
    Expected,
    ExportParity,
    Manifest,
    Size,
    Source,
    Sparsity,
)
from robust_edge_runtimes.core.preprocessing import Preprocessing
from robust_edge_runtimes.verdict.measurement import Parity

NO_IMAGES_NOTE = (
    "It was exported without images: its stored images are noise, which shows that it computes what the source "
    "computes, and nothing of accuracy or robustness.",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ArtifactRequest:
    """A network to export, and everything that the artifact and its companions depend on.

    Attributes:
        model: in evaluation mode, on the CPU.
        shape: (C, H, W) of one image.
        sparsity: numbers of non-zero weights of the checkpoint; those of the artifact must be equal.
        precision: one of the target's precisions; None for its first.
        batch: fixed batch size; None for any number of images.
        calibration: (N, C, H, W) float32 in [0, 1], training images; required for int8.
        held_out, calibration_method, explain: as in `ExportSettings`.
        options: values of the format's own options by name; those left out have their defaults.
        layer_forms, compile_library, ranges: as in `ExportSettings`.
        compact: whether to remove channels without effect before the export.
        preprocessing: how pictures become images of the network; None if that is not known.
    """

    model: nn.Module
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    sparsity: Sparsity
    source: Source
    target: Target
    precision: str | None = None
    batch: int | None = None
    calibration: np.ndarray | None = None
    held_out: np.ndarray | None = None
    calibration_method: str | None = None
    explain: bool = False
    options: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)
    layer_forms: Mapping[str, str] | None = None
    compile_library: bool = True
    compact: bool = True
    preprocessing: Preprocessing | None = None
    ranges: Mapping[str, tuple[float, float]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExportRequest(ArtifactRequest):
    """An ArtifactRequest with everything else that a bundle records.

    Attributes:
        expected: accuracies on the golden images.
        golden: images and the checkpoint's logits on them.
    """

    expected: Expected
    golden: Golden


@dataclasses.dataclass(frozen=True)
class WrittenArtifact:
    """An artifact in a folder, and the network that it was made from."""

    artifact: ExportedArtifact
    compacted: Compacted


@dataclasses.dataclass(frozen=True)
class Exported:
    """A bundle that was written, and the errors of its artifact's logits against the checkpoint.

    Attributes:
        quantisation: how 8 bits were calibrated, and what they cost; None in other precisions.
    """

    path: str
    manifest: Manifest
    parity: Parity
    quantisation: QuantisationReport | None = None


def export_bundle(request: ExportRequest, path: Path, *, overwrite: bool = False) -> Exported:
    """Write one bundle.

    Args:
        request: the network and the settings.
        path: the bundle's folder; it is created only if all checks pass.
        overwrite: whether to replace an older bundle.

    Raises:
        ExportError: the network cannot be exported for the target, or the artifact's outputs differ.
        InputError: `path` exists, or the target does not support the precision or a setting.
        BackendUnavailable: the runtime that checks the artifact is not installed here.
    """
    refuse_to_replace(path, overwrite=overwrite)
    refuse_choices(request.target, precision=request.precision, batch=request.batch, options=request.options)
    with new_directory(path, overwrite=overwrite) as folder:
        written = write_artifact(request, folder)
        artifact = written.artifact
        write_golden(folder / GOLDEN, request.golden)
        manifest = seal(folder, manifest_of(request, request.expected, written, folder))
        checked = checked_parity(open_bundle(folder), request)
        parity = checked.parity
        write_golden(folder / GOLDEN, checked.golden)
        write_readme(folder, request.target, request.source, request.expected, artifact, parity)
        record = ExportParity(parity.max_logit_error, parity.argmax_agreement, parity.tolerance, checked.checked_with)
        manifest = seal(folder, dataclasses.replace(manifest, parity=record))
        open_bundle(folder).golden()
    return Exported(str(path), manifest, parity, artifact.quantisation)


def write_artifact(request: ArtifactRequest, folder: Path) -> WrittenArtifact:
    """Write the part of a bundle that does not depend on images: the artifact, and the files for use on the device.

    Raises:
        ExportError: the network cannot be exported for the target.
        InputError: the target does not support the precision.
    """
    artifact, compacted = _exported(request, _compacted(request), folder)
    images = NO_IMAGES_NOTE if request.source.dataset == NO_IMAGES else ()
    artifact = dataclasses.replace(artifact, notes=(*artifact.notes, *compacted.notes, *images))
    _check_sparsity(compacted.sparsity, artifact.sparsity)
    write_scripts(folder, request.target, request.classes)
    return WrittenArtifact(artifact, compacted)


def _exported(request: ArtifactRequest, compacted: Compacted, folder: Path) -> tuple[ExportedArtifact, Compacted]:
    """The artifact of the smaller network, or of the given one where the target does not take its numbers of channels.

    `check` has seen the given network only.
    """
    export = format_named(request.target.format).export
    try:
        return export(compacted.model, request.shape, request.target, str(folder), _settings(request)), compacted
    except ExportError as cause:
        if compacted.record is None or isinstance(cause, TooFewBits):
            raise
        note = f"Channels without effect were kept: without them, {' '.join(str(cause).split())}."
    whole = Compacted(request.model, request.sparsity, notes=(note,))
    return export(whole.model, request.shape, request.target, str(folder), _settings(request)), whole


def refuse_to_replace(path: Path, *, overwrite: bool) -> None:
    """Raise InputError unless `path` does not exist, or is a bundle without other files and `overwrite` is on."""
    check_new_directory(path, overwrite=overwrite)
    if not path.is_dir() or not any(path.iterdir()):
        return
    sums = path / SUMS
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums.is_file() else []
    listed = {line.partition("  ")[2] for line in lines} | {SUMS}
    if MANIFEST not in listed:
        raise InputError(f"{path} exists and is not a bundle; `overwrite` replaces bundles only")
    others = sorted(
        name
        for name in (file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir())
        if name not in listed and "__pycache__" not in name
    )
    if others:
        raise InputError(f"{path} holds {others[0]}, which no export writes and `overwrite` would delete; move it away")


def refuse_choices(
    target: Target, *, precision: str | None = None, batch: int | None, options: Mapping[str, OptionValue]
) -> None:
    """Raise InputError for a setting that the target's format does not support, or a value that it does not allow."""
    own = options_of(target.format)
    foreign = sorted(set(options) - {option.name for option in own})
    if foreign:
        name = foreign[0]
        raise InputError(
            f"target {target.name} is of format {target.format}, which has no `{name}`; leave `{name}` out"
        )
    resolved(own, options)
    stored = target.in_file(target.precision(precision))
    for option in own:
        if options.get(option.name) is not None and option.precision not in (None, stored):
            raise InputError(
                f"`{option.name}` is for files of {option.precision}; for this precision target {target.name} has one "
                f"of {stored}, of which the device's runtime decides by itself what it computes in fewer bits"
            )
    if batch is not None and not format_named(target.format).takes_fixed_batch:
        raise InputError(f"target {target.name} takes any number of images in one call; leave `batch` out")


def _settings(request: ArtifactRequest) -> ExportSettings:
    source, target = request.source, request.target
    return ExportSettings(
        precision=target.precision(request.precision),
        batch=request.batch,
        calibration=request.calibration,
        held_out=request.held_out,
        calibration_method=request.calibration_method,
        explain=request.explain,
        options=_options(request),
        layer_forms=request.layer_forms,
        ranges=request.ranges,
        compile_library=request.compile_library,
        metadata=(
            ("arch", source.arch),
            ("checkpoint_sha256", source.checkpoint_sha256),
            ("classes", "\n".join(request.classes)),
            ("input", "float32 pixels in [0, 1], not normalised"),
            ("target", target.name),
        ),
    )


def _options(request: ArtifactRequest) -> dict[str, OptionValue]:
    return resolved(options_of(request.target.format), request.options)


def _compacted(request: ArtifactRequest) -> Compacted:
    if not request.compact:
        return Compacted(request.model, request.sparsity)
    chosen = format_named(request.target.format)
    return compact(
        request.model,
        request.shape,
        request.sparsity,
        sparse_tensor_cores=chosen.sparse_tensor_cores,
        block=chosen.channel_block(request.target.precision(request.precision)),
    )


def _check_sparsity(checkpoint: Sparsity, artifact: Sparsity) -> None:
    if checkpoint.weights != artifact.weights or artifact.nonzero > checkpoint.nonzero:
        raise ExportError(
            f"the artifact holds {artifact.nonzero} non-zeros of {artifact.weights} prunable weights, the checkpoint "
            f"{checkpoint.nonzero} of {checkpoint.weights}; the export changed the network"
        )


def manifest_of(request: ArtifactRequest, expected: Expected, written: WrittenArtifact, folder: Path) -> Manifest:
    """The manifest without hashes and parity, which are computed later.

    Args:
        request: what was exported.
        expected: accuracies on the golden images.
        written: the artifact.
        folder: the files of the artifact lie here.
    """
    artifact = written.artifact
    return Manifest(
        schema_version=SCHEMA_VERSION,
        target=request.target.name,
        artifact=Artifact(
            file=artifact.file,
            format=artifact.format,
            precision=artifact.precision,
            sha256="",
            bytes=0,
            opset=artifact.opset,
            ir_version=artifact.ir_version,
            companions=tuple(Companion(name, "", 0) for name in artifact.companions),
        ),
        input=artifact.input,
        input_range=(0.0, 1.0),
        output=artifact.output,
        classes=request.classes,
        sparsity=artifact.sparsity,
        source=request.source,
        expected=expected,
        files={},
        layers=artifact.layers,
        size=size_of(folder, (artifact.file, *artifact.companions), artifact.weights_file, request.sparsity.weights),
        notes=artifact.notes,
        compaction=written.compacted.record,
        choices=Choices(
            request.compact,
            _count(request.calibration),
            _options(request),
            _count(request.held_out),
            None if artifact.quantisation is None else artifact.quantisation.method,
        ),
        preprocessing=request.preprocessing,
    )


def _count(images: np.ndarray | None) -> int:
    return 0 if images is None else len(images)


def size_of(folder: Path, files: Sequence[str], weights_file: str | None, dense: int) -> Size:
    """What the zeros save in bytes.

    Args:
        folder: of the artifact.
        files: names of the artifact and its companions.
        weights_file: the one that holds the weights; None where that is the artifact itself.
        dense: number of prunable weights of the checkpoint.
    """
    paths = [folder / name for name in files]
    weights = None if weights_file is None else (folder / weights_file).stat().st_size
    total, compressed = sum(path.stat().st_size for path in paths), sum(map(_compressed_size, paths))
    return Size(total, compressed, 4 * dense, weights)


def _compressed_size(path: Path) -> int:
    compressor, size = zlib.compressobj(6), 0
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            size += len(compressor.compress(block))
    return size + len(compressor.flush())
