"""The settings of an export beyond network and target, and the description of the file that it wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from robust_edge_exporters.format_option import OptionValue
from robust_edge_exporters.quantisation import QuantisationReport
from robust_edge_runtimes.core.manifest import LayerForm, Sparsity, TensorSpec


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExportSettings:
    """Settings of an export that the target does not determine.

    Attributes:
        precision: one of the target's precisions.
        batch: fixed batch size; None for any number of images.
        calibration: (N, C, H, W) float32 in [0, 1], training images from which int8 ranges are computed.
        held_out: (N, C, H, W) float32 in [0, 1], other training images, by which the way of calibration is chosen.
        calibration_method: the way that an earlier export chose; kept where it is as good as the best one.
        explain: whether to measure what each layer loses in 8 bits.
        options: values of the format's own options by name, as its `options.py` declares them.
        layer_forms: form of each layer by its name, as an earlier export recorded it in the manifest, for a format that
            chooses between forms by timing; None to choose.
        compile_library: whether to compile generated source for the exporting machine, if it is one of the target's.
        ranges: lowest and highest value of each tensor with which the network was trained to compute in 8 bits, for
            formats that compute as it was trained; they replace those of the calibration. None if it was not.
        metadata: texts by key for the artifact, if its format supports metadata.
    """

    precision: str = "fp32"
    batch: int | None = None
    calibration: np.ndarray | None = None
    held_out: np.ndarray | None = None
    calibration_method: str | None = None
    explain: bool = False
    options: Mapping[str, OptionValue] = dataclasses.field(default_factory=dict)
    layer_forms: Mapping[str, str] | None = None
    compile_library: bool = True
    metadata: tuple[tuple[str, str], ...] = ()
    ranges: Mapping[str, tuple[float, float]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedArtifact:
    """One written model file.

    Attributes:
        file: its name inside the folder it was written to.
        input: name of the input tensor.
        output: name of the output tensor.
        sparsity: numbers of non-zero weights, counted in the written file.
        layers: the form in which each prunable layer is stored, if the format has several.
        notes: properties of this file that its user should know, one sentence each.
        companions: names of the other files that the model file needs.
        weights_file: the companion that holds the weights, if there is one.
        quantisation: how 8 bits were calibrated; None in other precisions.
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
    quantisation: QuantisationReport | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of an artifact, read from its own bytes and not from the bundle's manifest.

    Attributes:
        sparsity: non-zeros, counted in the same way as at export.
        precision: of the stored weights: int8 if any has 8 bits, since an int8 file may leave the largest layers in
            fp32; otherwise that of most of them.
        opset, ir_version: of an ONNX file.
    """

    sparsity: Sparsity
    precision: str
    opset: int | None = None
    ir_version: int | None = None
