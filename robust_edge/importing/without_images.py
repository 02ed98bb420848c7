"""What can be done with an ONNX file alone: check it, export it, and time it as it is. Noise takes the place of images.

The logits of noise show that an artifact computes what the file computes. They show nothing of accuracy or robustness,
so that `verify` refuses such bundles; int8, whose ranges come from images, is refused here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_edge.checking.check import NetworkCheck, check_network, require_targets
from robust_edge.config.export import ExportChoices
from robust_edge.importing.graph_surgery import fix_image_shape, with_channels_first
from robust_edge.importing.reference import run_graph
from robust_edge.importing.run import ImportSettings, spec_of
from robust_edge.importing.source import Request
from robust_edge.importing.table import read_source
from robust_edge.models.normalized import Normalized
from robust_edge.models.spec import checked_model
from robust_edge.onnx_graph.file import read_program
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.run.environment import versions
from robust_edge_exporters.bundle import Exported, ExportRequest, export_bundle, refuse_choices, refuse_to_replace
from robust_edge_exporters.formats.onnx.contents import contents_of
from robust_edge_exporters.target import Target
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.core.bundle import seal
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import sha256_of
from robust_edge_runtimes.core.folders import new_directory
from robust_edge_runtimes.core.golden import GOLDEN, MAX_TOLERANCE, Golden, expected_of, write_golden
from robust_edge_runtimes.core.manifest import (
    NO_IMAGES,
    SCHEMA_VERSION,
    Artifact,
    AttackSpec,
    Manifest,
    Source,
    TensorSpec,
)

COUNT = 32
"""Number of noise images."""
NO_ATTACK = AttackSpec(name="none", eps=0.0, steps=0, step_size=0.0, seed=0)


def export_file(
    file: Path,
    target: Target,
    path: Path,
    settings: ImportSettings,
    choices: ExportChoices,
    *,
    overwrite: bool = False,
) -> tuple[Exported, tuple[str, ...]]:
    """Export an ONNX file to a bundle whose stored images are noise.

    Args:
        file: opset 11 or newer, one input of float32 images, one output of logits.
        target: what it is exported for.
        path: the bundle's folder.
        settings: shape, normalisation and class names; none of them has to be given.
        choices: what the target leaves open.
        overwrite: whether to replace an older bundle.

    Returns:
        The bundle, and notes on what was changed in the network.

    Raises:
        InputError: the file cannot be read, leaves its shape open, or int8 is asked for.
        ExportError: the network cannot be exported to the target.
    """
    refuse_to_replace(path, overwrite=overwrite)
    refuse_choices(target, batch=choices.batch, options=choices.options)
    precision = target.precision(choices.precision)
    if precision == "int8":
        raise InputError(f"target {target.name} in {_needs_images(file)}")
    model, notes = network_of_file(file, settings)
    spec = model.spec
    require_targets(model, spec.shape, [target])
    images = _noise(spec.shape)
    golden = _golden(images, model(torch.from_numpy(images)).numpy(), 1e-3)
    request = ExportRequest(
        model=model,
        shape=spec.shape,
        classes=spec.classes,
        sparsity=sparsity_of(prunable_parameters(model)),
        source=_source(file),
        expected=expected_of(golden, NO_ATTACK),
        golden=golden,
        target=target,
        precision=precision,
        batch=choices.batch,
        options=choices.options,
        compact=choices.compact,
    )
    return export_bundle(request, path, overwrite=overwrite), notes


def check_file(
    file: Path,
    targets: Sequence[Target],
    shape: tuple[int, ...] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NetworkCheck, tuple[str, ...]]:
    """What `export_file` would do for each target.

    Args:
        file: as for `export_file`.
        targets: rows of the table.
        shape: (C, H, W), where the file leaves it open.
        progress: as for `check_network`.

    Returns:
        The results, and notes on what is changed in the network.

    Raises:
        InputError: the file cannot be read, or leaves its shape open.
    """
    model, notes = network_of_file(file, ImportSettings(shape=shape))
    found = check_network(model, model.spec.shape, targets, progress)
    answers = tuple(
        dataclasses.replace(answer, problem=f"works, but {_needs_images(file)}")
        if answer.works and answer.precision == "int8"
        else answer
        for answer in found.targets
    )
    return dataclasses.replace(found, targets=answers), notes


def network_of_file(file: Path, settings: ImportSettings) -> tuple[Normalized, tuple[str, ...]]:
    """The network of an ONNX file with its normalisation, in evaluation mode, and notes on what was changed in it.

    Raises:
        InputError: the file cannot be read, or leaves its shape open.
    """
    found = read_source(Request(path=file, shape=settings.shape))
    model = checked_model(found.network, spec_of(found, settings, settings.classes))
    return model.eval().requires_grad_(False), found.notes


def _needs_images(file: Path) -> str:
    return (
        f"int8 reads ranges from images, and {file} has none; import it with images first: robust-edge import {file} "
        "--dataset folder --data-dir DIR -o RUN"
    )


def bundle_of_file(file: Path, path: Path, shape: tuple[int, ...] | None = None) -> None:
    """Put an ONNX file as it is into a bundle, which `bench` can time.

    Args:
        file: its external data is copied into the bundle's file.
        path: the bundle's folder.
        shape: (C, H, W), where the file leaves it open.

    Raises:
        InputError: it does not take images, or leaves their shape open, or ONNX Runtime cannot run it.
    """
    program = read_program(file)
    fixed = type(program)()
    fixed.CopyFrom(program)
    if shape is not None and with_channels_first(fixed, shape):
        fixed.CopyFrom(program)  # the file is not changed, and its images neither
        shape = (*shape[1:], shape[0])
    shape, batch = fix_image_shape(fixed, shape, str(file))
    ports = {item.name for item in program.graph.initializer}
    names = [next(port.name for port in program.graph.input if port.name not in ports), program.graph.output[0].name]
    images = _noise(shape, (batch or 1) * -(-COUNT // (batch or 1)))
    parts = [run_graph(program, part, names[1:])[0] for part in np.split(images, len(images) // (batch or len(images)))]
    logits = np.concatenate(parts)
    if logits.ndim != 2 or len(logits) != len(images):
        raise InputError(
            f"{file} gives an output of shape {logits.shape} for {len(images)} images, expected (N, K), the logits "
            "of a classifier"
        )
    with new_directory(path, overwrite=False) as folder:
        (folder / "model.onnx").write_bytes(_with_initializers(program).SerializeToString())
        held = contents_of(folder / "model.onnx")
        if not held.sparsity.weights:
            raise InputError(f"{file} holds no convolution and no linear layer with weights of its own")
        golden = _golden(images, logits, MAX_TOLERANCE[held.precision])
        write_golden(folder / GOLDEN, golden)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            target=f"{file.name} as it is",
            artifact=Artifact("model.onnx", "onnx", held.precision, "", 0, held.opset, held.ir_version),
            input=TensorSpec(names[0], (batch, *shape)),
            input_range=(0.0, 1.0),
            output=TensorSpec(names[1], (batch, logits.shape[1])),
            classes=tuple(map(str, range(logits.shape[1]))),
            sparsity=held.sparsity,
            source=_source(file),
            expected=expected_of(golden, NO_ATTACK),
            files={},
        )
        seal(folder, manifest)


def _with_initializers(program: Any) -> Any:
    """A copy whose Constant nodes are initializers, where weights are counted; to a runtime both are the same."""
    changed = type(program)()
    changed.CopyFrom(program)
    constants = [node for node in program.graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")]
    for node in constants:
        changed.graph.node.remove(node)
        tensor = changed.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
    return changed


def _noise(shape: tuple[int, ...], count: int = COUNT) -> np.ndarray:
    """(count, C, H, W) float32, uniform in [0, 1]."""
    return np.random.default_rng(0).uniform(size=(count, *shape)).astype(np.float32)


def _golden(images: np.ndarray, logits: np.ndarray, tolerance: float) -> Golden:
    """Noise, labelled by the network itself, without an attack."""
    return Golden(
        clean=images,
        attacked=images,
        labels=logits.argmax(1).astype(np.int64),
        clean_logits=logits,
        attacked_logits=logits,
        tolerance=tolerance,
    )


def _source(file: Path) -> Source:
    return Source(
        run=file.name,
        checkpoint_sha256=sha256_of(file),
        arch=file.name,
        dataset=NO_IMAGES,
        dataset_fingerprint="0" * 64,
        versions=versions(),
    )
