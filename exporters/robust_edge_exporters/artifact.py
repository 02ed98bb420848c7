"""The settings of an export beyond network and target, and the description of the file that it wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from robust_edge_runtimes.core.manifest import LayerForm, Sparsity, TensorSpec


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExportSettings:
    """Choices that a target leaves open.

    Attributes:
        precision: one of the target's.
        batch: fixed number of images of one call; None takes any.
        calibration: (N, C, H, W) float32 in [0, 1], training images that int8 ranges are read from.
        csr_threshold: store a layer as CSR if it keeps at most this fraction of its weights; None times both forms.
        csr_forms: `csr` or `dense` by the name of the layer, as an earlier export chose; None chooses.
        compile_library: compile generated source for the exporting machine, where it is of the target's kind.
        metadata: written into the artifact where its format has a place for it.
    """

    precision: str = "fp32"
    batch: int | None = None
    calibration: np.ndarray | None = None
    csr_threshold: float | None = None
    csr_forms: Mapping[str, str] | None = None
    compile_library: bool = True
    metadata: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedArtifact:
    """One written model file.

    Attributes:
        file: its name inside the folder it was written to.
        sparsity: counted in the written file.
        layers: how each prunable layer is stored and run, where the exporter had a choice.
        companions: names of the files that belong to the model file.
        weights_file: the companion that holds the weights, if one does.
        notes: properties of this file that its user should know, one sentence each.
    """

    file: str
    format: str
    precision: str
    input: TensorSpec
    output: TensorSpec
    sparsity: Sparsity
    opset: int | None = None
    ir_version: int | None = None
    layers: tuple[LayerForm, ...] = ()
    notes: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    weights_file: str | None = None
