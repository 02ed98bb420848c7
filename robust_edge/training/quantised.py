"""The end of the masked phase in the integers of the int8 engine, so that training knows of their rounding.

At the start of each of these epochs the ranges of the tensors are measured on the first training images, as a
calibration at export measures them; those of the network that is written are measured at the end. Batch norms compute
with their running statistics, which are estimated at the start and then follow the batches.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import onnx
import torch
from torch import Tensor

from robust_edge.checking.check import require_targets
from robust_edge.data import Source
from robust_edge.int8.folded import probe, require_followed
from robust_edge.int8.simulation import Simulation
from robust_edge.models import Normalized
from robust_edge.pruning.parametrised import materialised
from robust_edge.training.batchnorm import batchnorms, quieten, reestimate
from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_exporters.formats.native.export import write_dense
from robust_edge_exporters.native import ir
from robust_edge_exporters.native.importer import import_model
from robust_edge_exporters.native.int8 import calibrate
from robust_edge_exporters.native.int8.calibrate import Ranges
from robust_edge_exporters.native.int8.quantise import prepared, ranged_tensors
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.errors import ExportError
from robust_edge_runtimes.core.files import temporary_folder
from robust_edge_runtimes.core.folders import SCRATCH

IMAGES = 256
TARGET = "x86-cpu-sparse-int8"
"""The target whose conversion names the tensors; `arm-cpu-sparse-int8` names them alike."""


def begun(model: Normalized, source: Source) -> None:
    """Estimate the running statistics with which the network begins in integers, on the images of `measured`."""
    reestimate(model, [_images(source)])
    quieten(batchnorms(model))


def in_integers(model: Normalized, source: Source) -> Simulation:
    """The simulation of the present network with the ranges of the first training images."""
    program = float_program(model)
    graph = prepared(import_model(program, "the network"))
    return Simulation(model, graph, _ranges(program, graph, source), model.spec.shape)


def simulated(model: Normalized, ranges: Ranges) -> Simulation:
    """The simulation of the present network with known ranges."""
    graph = prepared(import_model(float_program(model), "the network"))
    return Simulation(model, graph, ranges, model.spec.shape)


def measured(model: Normalized, source: Source) -> Ranges:
    """The ranges of the tensors of a network on the first training images."""
    program = float_program(model)
    return _ranges(program, prepared(import_model(program, "the network")), source)


def _ranges(program: onnx.ModelProto, graph: ir.Graph, source: Source) -> Ranges:
    return calibrate.ranges(program, ranged_tensors(graph), _images(source).cpu().numpy())


def _images(source: Source) -> Tensor:
    (batch,) = source.batches([torch.arange(min(IMAGES, len(source)))])
    return batch[0]


def require_quantisable(model: Normalized) -> None:
    """Check that the network can be exported to TARGET and trained in its integers, before it is trained.

    Args:
        model: on the CPU; not changed.

    Raises:
        ExportError: the int8 engine lacks one of its operators.
        InputError: a parameter or a batch norm belongs to no layer that can be simulated.
    """
    try:
        with evaluation_mode(model):
            require_targets(model, model.spec.shape, [target_named(TARGET)])
    except ExportError as cause:
        raise ExportError(f"training.quantize int8 cannot train this network: {cause}") from cause
    probed = probe(materialised(model))
    require_followed(prepared(import_model(float_program(probed), "the network")), probed, model.spec.shape)


def float_program(model: Normalized) -> onnx.ModelProto:
    """The network as the export to the int8 engine reads it."""
    plain = copy.deepcopy(materialised(model)).cpu().eval()
    with temporary_folder(Path(tempfile.gettempdir()), SCRATCH) as folder:
        written = write_dense(plain, model.spec.shape, target_named(TARGET), str(folder), ExportSettings())
        return onnx.load(str(folder / written.file))
