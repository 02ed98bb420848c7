"""From a graph of floats and the ranges of its tensors to a graph of integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.int8 import ops
from robust_edge_exporters.native.int8.arithmetic import (
    LARGEST_CODE,
    Coding,
    Floats,
    Requantisation,
    layer_codes,
    requantisation,
    sum_bounds,
)
from robust_edge_exporters.native.int8.calibrate import Ranges
from robust_edge_exporters.native.int8.functions import FUNCTIONS, function_of
from robust_edge_exporters.native.operators.activate import FLOAT_MAX, Activate
from robust_edge_exporters.native.operators.add import Add
from robust_edge_exporters.native.operators.affine import Affine
from robust_edge_exporters.native.operators.average_pool import AveragePool
from robust_edge_exporters.native.operators.concat import Concat
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.operators.elementwise import Elementwise
from robust_edge_exporters.native.operators.elu import Elu
from robust_edge_exporters.native.operators.flatten import Flatten
from robust_edge_exporters.native.operators.linear import Linear
from robust_edge_exporters.native.operators.max_pool import MaxPool
from robust_edge_exporters.native.operators.mean import Mean
from robust_edge_exporters.native.operators.mul import Mul
from robust_edge_exporters.native.passes import only_reader, optimise, substitute
from robust_edge_exporters.weight_uses import FIXED
from robust_edge_runtimes.core.errors import ExportError

IMAGE = (0.0, 1.0)  # range of the pixels
RANGED = (Activate, Add, Affine, Concat, Conv, Elementwise, Linear, Mean, Mul)  # others keep their input's coding
CLAMPS = (Add, Affine, Conv, Linear, Mean, Mul)  # whose codes are cut off for free


def prepared(graph: ir.Graph) -> ir.Graph:
    """The graph after the passes that integers allow: only activations that cut off are fused into sums."""
    return optimise(graph, fuse=fuse_clamps)


def fuse_clamps(graph: ir.Graph) -> ir.Graph:
    """Fuse ReLU and other clamps into the operator before, if that requantises sums."""
    for op in graph.ops:
        after = only_reader(graph, op.output)
        clamp = isinstance(after, Activate) and after.act.kind is ir.Kind.CLAMP
        if clamp and isinstance(op, CLAMPS) and op.act == ir.NONE and after is not None:
            return substitute(graph, {op.output: None, after.output: replace(op, output=after.output, act=after.act)})
    return graph


def ranged_tensors(graph: ir.Graph) -> list[str]:
    """The tensors whose ranges `quantise` needs, except that of the image."""
    first = _normalisation(graph)
    return [op.output for op in graph.ops if isinstance(op, RANGED) and op is not first and not _is_logits(op, graph)]


def require_integers(graph: ir.Graph) -> None:
    """Check that every operator has integers, before ranges are measured: copies write tensors that no ONNX node does.

    Raises:
        ExportError: the engine has no integers for an operator.
    """
    dispatcher = vars(Quantiser)["append"].dispatcher
    for op in graph.ops:
        if dispatcher.dispatch(type(op)) is dispatcher.dispatch(object):
            raise _unsupported(op, "is not computed in 8 bits")


def quantise(graph: ir.Graph, ranges: Ranges) -> ops.Int8Graph:
    """The graph of integers.

    Args:
        graph: of `prepared`.
        ranges: (lowest, highest) value of each of `ranged_tensors`, from calibration or from training.

    Raises:
        ExportError: the engine has no integers for an operator; or weights and ranges do not fit into 32 bits.
    """
    quantiser = Quantiser(graph, ranges)
    quantiser.image()
    for op in graph.ops:
        if op.output not in quantiser.codings:
            quantiser.append(op)
    network = quantiser.finished()
    return replace(network, graph=fuse_tables(network.graph))


def fuse_tables(graph: ir.Graph) -> ir.Graph:
    """Fuse tables into the convolutions and matrix products before them, which compute the same codes then."""
    for op in graph.ops:
        after = only_reader(graph, op.output)
        if not isinstance(op, (ops.QuantConv, ops.QuantLinear)) or not isinstance(after, ops.QuantTable):
            continue
        r = op.requantisation
        if r is not None and r.table is None:
            fused = replace(op, output=after.output, requantisation=replace(r, table=after.table))
            return fuse_tables(substitute(graph, {op.output: None, after.output: fused}))
    return graph


def _is_logits(op: ir.Op, graph: ir.Graph) -> bool:
    """Whether a matrix product computes the logits, which are not requantised."""
    return isinstance(op, Linear) and op.output == graph.output and op.act == ir.NONE


def _normalisation(graph: ir.Graph) -> Affine | None:
    first = graph.ops[0] if graph.ops else None
    alone = isinstance(first, Affine) and first.act == ir.NONE and len(graph.readers[graph.input]) == 1
    return first if alone and isinstance(first, Affine) else None


@dataclass
class Quantiser:
    """The operators quantised so far.

    Attributes:
        graph: of floats.
        ranges: of its tensors.
        codings: of the tensors computed so far.
    """

    graph: ir.Graph
    ranges: Ranges
    codings: dict[str, Coding] = field(default_factory=dict)
    quantised: list[ir.Op] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of tensors that are called differently
    parts: dict[str, ops.Parts] = field(default_factory=dict)  # of tensors of features that were images

    def image(self) -> None:
        """Append the codes of the image, normalised if the network begins with that."""
        graph, op = self.graph, _normalisation(self.graph)
        channels = graph.shapes[graph.input].channels
        scale, shift = (op.scale, op.shift) if op is not None else (np.ones(channels), np.zeros(channels))
        bounds = np.array([scale * pixel + shift for pixel in IMAGE], np.float64)
        name = op.output if op is not None else f"{graph.input}:codes"
        coding = self.codings[name] = Coding.of_range(float(bounds.min()), float(bounds.max()))
        quantise = ops.Quantise(
            name,
            (graph.input,),
            name,
            scale=(np.float64(scale) / coding.scale).astype(np.float32),
            shift=np.float64(shift) / coding.scale + coding.zero + 0.5,
        )
        if op is None:
            self.names[graph.input] = name
        self._append(quantise, graph.shapes[graph.input])

    def finished(self) -> ops.Int8Graph:
        """The graph, whose output is dequantised unless a matrix product writes it."""
        output = self.graph.output
        if self.names.get(output, output) in self.codings:
            coding, name = self.codings[self.names.get(output, output)], f"{output}:logits"
            shape = Shape(self.graph.shapes[output].channels, flat=True)
            self.quantised.append(
                ops.Dequantise(
                    name,
                    (self.names.get(output, output),),
                    name,
                    zero=coding.zero,
                    scale=coding.scale,
                    parts=self._parts(output),
                )
            )
            self.shapes[name], output = shape, name
        image = self.graph.input
        shapes = {image: self.graph.shapes[image]} | self.shapes
        return ops.Int8Graph(ir.Graph(image, output, tuple(self.quantised), shapes), self.codings)

    def _append(self, op: ir.Op, shape: Shape) -> None:
        self.quantised.append(op)
        self.shapes[op.output] = ops.words(shape)

    def _of(self, op: ir.Op) -> tuple[str, tuple[str, ...], str]:
        return op.name, tuple(self.names.get(name, name) for name in op.inputs), op.output

    def _input(self, op: ir.Op, index: int = 0) -> Coding:
        return self.codings[self.names.get(op.inputs[index], op.inputs[index])]

    def _coded(self, op: ir.Op) -> Coding:
        """The coding of the output of `op`, from its range."""
        if op.output not in self.ranges:
            raise ExportError(f"'{op.name}': the range of its output {op.output} is not known")
        self.codings[op.output] = Coding.of_range(*self.ranges[op.output])
        return self.codings[op.output]

    def _limits(self, op: ir.Op, coding: Coding) -> tuple[int, int]:
        """The codes between which the activation of `op` cuts off."""
        if op.act == ir.NONE:
            return 0, LARGEST_CODE
        if op.act.kind is not ir.Kind.CLAMP:
            raise _unsupported(op, f"with activation {op.act.kind.value}")
        low, high = coding.codes(np.array([op.act.lo, min(op.act.hi, FLOAT_MAX)]))
        return int(low), int(high)

    @singledispatchmethod
    def append(self, op: ir.Op) -> None:
        """Append the integers of an operator of floats."""
        raise _unsupported(op, "is not computed in 8 bits")

    @append.register
    def _(self, op: Conv) -> None:
        source, output = self._input(op), self._coded(op)
        residual = None if op.residual is None else self.names.get(op.residual, op.residual)
        codes, scales, starts = layer_codes(op.weight, op.bias, source)
        r = requantisation(
            starts,
            sum_bounds(starts, codes),
            source.scale * scales.astype(np.float64),
            output,
            residual=None if residual is None else self.codings[residual],
            limits=self._limits(op, output),
        )
        conv = ops.QuantConv(
            *self._of(op),
            weight=codes,
            bias=r.bias,
            window=op.window,
            groups=op.groups,
            padding=source.zero,
            residual=residual,
            requantisation=r,
        )
        self._append(conv, self.graph.shapes[op.output])

    @append.register
    def _(self, op: Affine) -> None:
        shape = self.graph.shapes[op.output]
        if shape.flat:
            raise _unsupported(op, "of features that no matrix product writes")
        conv = Conv(
            FIXED + op.name,
            op.inputs,
            op.output,
            op.act,
            weight=op.scale.reshape(-1, 1, 1, 1),
            bias=op.shift,
            window=Window((1, 1)),
            groups=shape.channels,
        )
        self.append(conv)

    @append.register
    def _(self, op: Linear) -> None:
        source = self._input(op)
        codes, scales, starts = layer_codes(op.weight, op.bias, source)
        units = source.scale * scales.astype(np.float64)
        r, logits = None, _is_logits(op, self.graph)
        if not logits:
            output = self._coded(op)
            r = requantisation(starts, sum_bounds(starts, codes), units, output, limits=self._limits(op, output))
        linear = ops.QuantLinear(
            *self._of(op),
            weight=codes,
            bias=starts if r is None else r.bias,
            parts=self._parts(op.inputs[0]),
            requantisation=r,
            scales=units.astype(np.float32) if logits else None,
        )
        self._append(linear, self.graph.shapes[op.output])
        if logits:
            self.shapes[op.output] = self.graph.shapes[op.output]

    def _parts(self, name: str) -> ops.Parts:
        """(channels, pixels) of the images that were flattened to a tensor, or its features, of one pixel."""
        return self.parts.get(name, ((self.graph.shapes[name].channels, 1),))

    def _flat(self, name: str, parts: ops.Parts) -> None:
        """Set the shape in words of a tensor of features."""
        self.parts[name] = parts
        self.shapes[name] = Shape(sum(-(-channels // ops.WORD) * pixels for channels, pixels in parts), flat=True)

    @append.register
    def _(self, op: Add) -> None:
        first, second = self._input(op), self._input(op, 1)
        output = self._coded(op)
        starts = np.array([-first.zero])
        r = self._single(op, starts, LARGEST_CODE - first.zero, first.scale, output, residual=second)
        self._append(ops.QuantAdd(*self._of(op), requantisation=r), self.graph.shapes[op.output])

    @append.register
    def _(self, op: Mul) -> None:
        first, second = self._input(op), self._input(op, 1)
        output = self._coded(op)
        largest = np.prod([max(coding.zero, LARGEST_CODE - coding.zero) for coding in (first, second)])
        bounds = (np.array([-largest]), np.array([largest]))
        r = requantisation(
            np.zeros(1, np.int64), bounds, [first.scale * second.scale], output, limits=self._limits(op, output)
        )
        mul = ops.QuantMul(*self._of(op), zeros=(first.zero, second.zero), requantisation=r)
        self._append(mul, self.graph.shapes[op.output])

    @append.register
    def _(self, op: Mean) -> None:
        source, output = self._input(op), self._coded(op)
        pixels = self.graph.shapes[op.inputs[0]].pixels
        start, high = np.array([-pixels * source.zero]), pixels * (LARGEST_CODE - source.zero)
        r = self._single(op, start, high, source.scale / pixels, output)
        shape = self.graph.shapes[op.output]
        self._append(ops.QuantMean(*self._of(op), requantisation=r, flat=shape.flat), shape)

    def _single(
        self, op: ir.Op, start: Floats, highest: int, scale: float, output: Coding, residual: Coding | None = None
    ) -> Requantisation:
        """The requantisation that all channels share, of sums from `start` to `highest`."""
        bounds = (start, np.array([highest]))
        return requantisation(start, bounds, [scale], output, residual=residual, limits=self._limits(op, output))

    @append.register
    def _(self, op: Activate) -> None:
        self._table(op, function_of(op.act))

    @append.register
    def _(self, op: Elu) -> None:
        self._table(op, lambda x: np.where(x > 0, x, op.alpha * np.expm1(np.minimum(x, 0))))

    @append.register
    def _(self, op: Elementwise) -> None:
        if type(op) not in FUNCTIONS:
            raise _unsupported(op, "is not computed in 8 bits")
        self._table(op, FUNCTIONS[type(op)])

    def _table(self, op: ir.Op, function: Callable[[Floats], Floats]) -> None:
        table = self._input(op).table(function, self._coded(op))
        self._append(ops.QuantTable(*self._of(op), table=table), self.graph.shapes[op.output])
        if op.inputs[0] in self.parts:
            self._flat(op.output, self.parts[op.inputs[0]])

    @append.register
    def _(self, op: MaxPool) -> None:
        self._keep(op, lambda of, size, _: ops.QuantMaxPool(*of, window=op.window, size=size))

    @append.register
    def _(self, op: AveragePool) -> None:
        self._keep(
            op,
            lambda of, size, zero: ops.QuantAveragePool(
                *of, window=op.window, size=size, padding=zero if op.count_padding else None
            ),
        )

    @append.register
    def _(self, op: Flatten) -> None:
        self._keep(op, lambda of, *_: ops.QuantFlatten(*of))

    def _keep(self, op: ir.Op, make: Callable[[tuple[str, tuple[str, ...], str], tuple[int, int], int], ir.Op]) -> None:
        """Append an operator whose output has the coding of its input."""
        if op.act != ir.NONE:
            raise _unsupported(op, f"with activation {op.act.kind.value}")
        coding, shape = self._input(op), self.graph.shapes[op.output]
        self.codings[op.output] = coding
        self._append(make(self._of(op), (shape.height, shape.width), coding.zero), shape)
        if isinstance(op, Flatten):
            source = self.graph.shapes[op.inputs[0]]
            self._flat(op.output, ((source.channels, source.pixels),))

    @append.register
    def _(self, op: Concat) -> None:
        shapes = [self.graph.shapes[name] for name in op.inputs]
        flat = shapes[0].flat
        if not flat and any(shape.channels % ops.WORD for shape in shapes[:-1]):
            raise _unsupported(
                op, f"of {[shape.channels for shape in shapes]} channels: all but the last must be fours"
            )
        output, sources = self._coded(op), []
        for index, (source, shape) in enumerate(zip(self._of(op)[1], shapes, strict=True)):
            if self.codings[source] != output:
                name = f"{op.output}:{index}"
                table = self.codings[source].table(lambda x: x, output)
                self._append(ops.QuantTable(f"{op.name}:{index}", (source,), name, table=table), shape)
                self.shapes[name] = self.shapes[source]
                source = name
            sources.append(source)
        self._append(ops.QuantConcat(op.name, tuple(sources), op.output), self.graph.shapes[op.output])
        if flat:
            self._flat(op.output, tuple(part for name in op.inputs for part in self._parts(name)))


def _unsupported(op: ir.Op, why: str) -> ExportError:
    return ExportError(
        f"{type(op).__name__} at node '{op.name}' {why}; export to a sparse target in fp32, or to x86-cpu-int8 or "
        "arm-cpu-int8, which ONNX Runtime executes"
    )
