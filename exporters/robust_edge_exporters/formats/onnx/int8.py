"""Static quantisation to 8 bits: ranges come from training images; weights have one scale per output channel.

Weights are symmetric around zero, so a zero weight is the integer 0 and stays exactly zero. Of the ways to calibrate
the one is chosen whose logits are closest to the network's on other training images.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.onnx.calibration import METHODS, MINMAX, Distribution, Range, distributions, scores
from robust_edge_exporters.formats.onnx.float_islands import keep_islands_in_float, nodes_in_float
from robust_edge_exporters.formats.onnx.options import INT8_SKIP
from robust_edge_exporters.quantisation import CalibrationError, LayerLoss, LayerRange, QuantisationReport
from robust_edge_exporters.target import Quantisation
from robust_edge_runtimes.core.closeness import logit_scale
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.scoring import agreement

# Nodes before the first of these normalise the pixels. They stay in fp32, since 8 bits would round the image itself.
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
PREFIX = "network."  # the user's network inside the one that normalises the pixels
SAME = 1.02
"""A recorded method is kept up to this many times the smallest error: another CPU's rounding may prefer another one."""
LARGEST = 1.05
"""A method is chosen only if its largest error is at most this many times that of MINMAX."""
EXPLAINED = 64  # images on which layers are left out one by one


class Quantiser:
    """An fp32 program and the values of its tensors on calibration images.

    Attributes:
        layers: names of the layers with weights by their node's name.
        candidates: the errors of all methods of calibration on the images that judge them; empty without such images.
        method: the chosen one.

    Args:
        program: fp32, batch-norm folded.
        style: the settings of the target's quantisation.
        settings: calibration images, those that judge the calibration, and the layers that stay in fp32.

    Raises:
        ExportError: there are no calibration images.
        InputError: a pattern of `int8_skip` names no layer.
    """

    def __init__(self, program: Any, style: Quantisation, settings: ExportSettings) -> None:
        self._program, self._style, self._settings = onnx.shape_inference.infer_shapes(program), style, settings
        _name_nodes(self._program)
        self.layers = _layers(self._program)
        self._skipped = _matching(self.layers, str(settings.options.get(INT8_SKIP.name) or ""))
        self._values: dict[str, Distribution] = distributions(self._program, _required(settings.calibration))
        self._ranges: dict[str, dict[str, Range]] = {}
        self.candidates = self._judged()
        self.method = self._chosen()

    def ranges(self, method: str) -> dict[str, Range]:
        """The range of every tensor by a method of calibration; computed once."""
        if method not in self._ranges:
            self._ranges[method] = {name: values.range(method) for name, values in self._values.items()}
        return self._ranges[method]

    def program(self, skipped: Collection[str] | None = None, method: str | None = None) -> Any:
        """Insert Quantize/Dequantize pairs around the operators that run in 8 bits.

        Args:
            skipped: names of the nodes of layers that stay in fp32; None for those of the settings.
            method: of calibration; None for the chosen one.
        """
        left_out = self._skipped if skipped is None else skipped
        ranges = self.ranges(method or self.method)
        return _with_pairs(self._program, self._style, ranges, [*_normalisation(self._program), *left_out])

    def report(self) -> QuantisationReport:
        """What was chosen, and the ranges of all layers; with `settings.explain` also what each layer costs."""
        covered = self.ranges(self.method)
        ranges = tuple(
            LayerRange(
                layer=self.layers[node.name],
                low=covered[node.input[0]][0],
                high=covered[node.input[0]][1],
                lowest=self._values[node.input[0]].low,
                highest=self._values[node.input[0]].high,
                precision="fp32" if node.name in self._skipped else "int8",
            )
            for node in self._program.graph.node
            if node.name in self.layers and node.input[0] in covered
        )
        judged_on = 0 if self._settings.held_out is None else len(self._settings.held_out)
        return QuantisationReport(
            method=self.method,
            judged_on=judged_on,
            candidates=self.candidates,
            ranges=ranges,
            losses=self._losses() if self._settings.explain else (),
        )

    def _judged(self) -> tuple[CalibrationError, ...]:
        images = self._settings.held_out
        if images is None or not len(images):
            return ()
        expected = scores(self._program, images)
        return tuple(_error(method, scores(self.program(method=method), images), expected) for method in METHODS)

    def _chosen(self) -> str:
        """The method with the smallest error, or the recorded one if it is as good; MINMAX where nothing judges.

        A method that cuts values off must not make the largest error larger.
        """
        if not self.candidates:
            return MINMAX
        most = LARGEST * next(item.max for item in self.candidates if item.method == MINMAX)
        allowed = [item for item in self.candidates if item.max <= most]
        best = min(allowed, key=lambda item: item.rms)
        recorded = [item for item in allowed if item.method == self._settings.calibration_method]
        return recorded[0].method if recorded and recorded[0].rms <= SAME * best.rms else best.method

    def _losses(self) -> tuple[LayerLoss, ...]:
        """Leave each layer in fp32, one at a time: what that gains is what the option would."""
        images = _required(self._settings.calibration if self._settings.held_out is None else self._settings.held_out)
        images = images[:EXPLAINED]
        expected = scores(self._program, images)
        everything = _error("", scores(self.program(), images), expected).rms
        losses = []
        for node in self.layers:
            if node in self._skipped:
                continue
            rms = _error("", scores(self.program([*self._skipped, node]), images), expected).rms
            share = 1 - (rms / everything) ** 2 if everything else 0.0
            losses.append(LayerLoss(layer=self.layers[node], rms=rms, share=share))
        return tuple(sorted(losses, key=lambda item: -item.share))


def check_skipped(program: Any, patterns: str) -> None:
    """Raise InputError if a pattern of `int8_skip` matches no layer of an fp32 program."""
    _name_nodes(program)
    _matching(_layers(program), patterns)


def _name_nodes(program: Any) -> None:
    for i, node in enumerate(program.graph.node):
        node.name = node.name or f"node_{i}"


def _error(method: str, logits: np.ndarray, expected: np.ndarray) -> CalibrationError:
    errors = np.abs(logits - expected).astype(np.float64) / logit_scale(expected)
    return CalibrationError(
        method=method,
        mean=float(errors.mean()),
        rms=float(np.sqrt((errors**2).mean())),
        max=float(errors.max()),
        agreement=agreement(logits, expected),
    )


def _with_pairs(program: Any, style: Quantisation, ranges: Mapping[str, Range], excluded: Sequence[str]) -> Any:
    """A copy of the program with Quantize/Dequantize pairs, from ONNX Runtime's quantiser.

    Raises:
        ExportError: the quantiser cannot handle the network.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    copied = onnx.ModelProto()
    copied.CopyFrom(program)
    types = sorted({*QDQRegistry, *QLinearOpsRegistry})
    in_float = nodes_in_float(program, types, excluded)
    limits = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    options = {"ActivationSymmetric": style.symmetric, "WeightSymmetric": True, "QuantizeBias": style.bias}
    with warnings.catch_warnings(), _without_advice():
        warnings.simplefilter("ignore")
        try:
            quantiser = QDQQuantizer(
                copied,
                True,  # one scale for each output channel
                style.reduce_range,
                QuantType.QInt8,
                QuantType.QInt8,
                TensorsData(CalibrationMethod.MinMax, limits),
                [],
                sorted(in_float),
                types,
                options,
            )
            quantiser.quantize_model()
            quantiser.model.topological_sort()
        except Exception as cause:  # the quantiser raises whatever the graph provokes
            raise ExportError(
                f"ONNX Runtime cannot quantise the network: {' '.join(str(cause).split())[:300]}"
            ) from cause
    written = quantiser.model.model
    keep_islands_in_float(written, in_float)
    _drop_unused_domains(written)
    del written.metadata_props[:]
    return written


def _required(images: np.ndarray | None) -> np.ndarray:
    if images is None or not len(images):
        raise ExportError("int8 needs training images to read its ranges from, and none were given")
    return np.ascontiguousarray(images, np.float32)


def _layers(program: Any) -> dict[str, str]:
    """The names of layers with weights by their node: that of the weight without `.weight`, or of the node."""
    constants = {item.name for item in program.graph.initializer}
    found = {}
    for node in program.graph.node:
        if node.op_type in WEIGHTED:
            weights = [name for name in node.input[:2] if name in constants]
            found[node.name] = weights[0].removeprefix(PREFIX).removesuffix(".weight") if weights else node.name
    return found


def _matching(layers: Mapping[str, str], patterns: str) -> list[str]:
    """Nodes of the layers that comma-separated patterns name."""
    chosen: list[str] = []
    for pattern in filter(None, (text.strip() for text in patterns.split(","))):
        found = [
            node
            for node, layer in layers.items()
            if any(fnmatch.fnmatchcase(name, pattern) for name in (node, layer, f"{layer}.weight", PREFIX + layer))
        ]
        if not found:
            raise InputError(
                f"`{INT8_SKIP.name}`: no layer matches {pattern!r}; there are {', '.join(layers.values())}"
            )
        chosen += found
    if chosen and set(chosen) == set(layers):
        raise InputError(
            f"`{INT8_SKIP.name}` leaves no layer in 8 bits; name fewer layers, or export for a target in fp32"
        )
    return list(dict.fromkeys(chosen))


def _normalisation(program: Any) -> list[str]:
    """Names of the nodes before the first weighted one."""
    names = [node.name for node in program.graph.node]
    first = next((i for i, node in enumerate(program.graph.node) if node.op_type in WEIGHTED), 0)
    return names[:first]


def _drop_unused_domains(program: Any) -> None:
    used = {node.domain for node in program.graph.node}
    kept = [item for item in program.opset_import if item.domain in used]
    del program.opset_import[:]
    program.opset_import.extend(kept)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Suppress ONNX Runtime's advice to preprocess the file, which does not apply to ours."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(level)
