"""Compare two ONNX files operator by operator and tensor by tensor.

Names of values and nodes may differ, as long as the operators are connected in the same way, since releases of torch
choose different names; none may hold what a terminal obeys. Everything else must be equal. Only scales and biases that
follow from calibration images are compared within rounding, since another CPU's kernels compute slightly different
ranges (`SCALE`).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from robust_edge_exporters.differences import tensor_difference
from robust_edge_runtimes.core.decode import short_repr

SCALE = 1e-5
"""Largest relative difference between what calibration gives on two machines: ranges and the scales of activations.

An honest file needs it. A range is the largest value of a tensor. Kernels that add n products in another order change a
sum by about sqrt(n) 2^-24 (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019), and the
errors of L layers add up likewise: in a ResNet34, n = 4608 and L = 34, to 2.4e-5 if products are added one by one, and
to a quarter of it if 16 are added at once, as AVX-512 does. Fused and unfused kernels of ONNX Runtime differ by 3e-6
there, and by 2e-7 in `small_cnn`. A machine that adds one by one in so deep a network exceeds the bound with an honest
file: mode `rebuild` then reports its scales, and the way out is to export on a machine like the one that verifies.

An attacker gains nothing from it. There is one scale to choose for each activation, since those of weights must be
equal, and those of a bias are the products of both in the same file (`_products`). A value
lies at most 128 steps from zero and moves by at most 128 * 1e-5 = 0.0013 steps, so that one value in 780 is rounded to
its neighbour: a variance of 0.0013 squared steps, where rounding itself has 1/12. Over 40 random choices of signs no
class of 714 digits changes, clean or attacked; at 1e-3 up to 5 do.
"""
COMPARED = ("node", "initializer", "input", "output", "value_info", "name")
TEXTS = ("doc_string", "metadata_props")
NODE_PARTS = ("input", "output", "attribute", "name", *TEXTS)
STORAGE = ("raw_data", "float_data", "int32_data")  # fields of a tensor that hold floats and 32-bit integers
ROUNDING = 2**-23  # relative error of a product in float32, and one more bit
MAX_NAME = 300  # characters; torch joins the names of modules and operators
LONGER, FREE = 1.1, 100
"""How many times as long, and how many characters longer, all names together may be than the new export's.

torch 2.11 and 2.14 choose names that differ by at most 5% for ResNet18, MobileNetV3, SqueezeNet and a ViT.
"""


def onnx_differences(built: Path, shipped: Path) -> list[str]:
    """Compare the file in `shipped` with the one that the run exports."""
    ours, theirs, name = built.read_bytes(), shipped.read_bytes(), shipped.name
    if ours == theirs:
        return []
    try:
        program = onnx.load_from_string(theirs)
    except Exception as cause:  # protobuf raises classes of its own
        return [f"{name} cannot be read as ONNX: {short_repr(str(cause))}"]
    built_program = onnx.load_from_string(ours)
    found = _Comparison(built_program, program).differences()
    return [f"{name}: {line}" for line in found or _hidden(built_program, ours, program, theirs)]


def _hidden(built_program: Any, ours: bytes, program: Any, theirs: bytes) -> Iterable[str]:
    """Whether equal programs hold bytes that their readers skip; unknown fields are removed from `program`."""
    program.DiscardUnknownFields()
    if _written(built_program) != ours:
        yield "the export writes it in another way than protobuf here, so that hidden bytes cannot be found"
    elif _written(program) != theirs:  # unknown fields, or a field that is given twice
        yield "it holds bytes that belong to none of its parts"


def _written(program: Any) -> bytes:
    """A program in the bytes that every export writes."""
    return bytes(program.SerializeToString(deterministic=True))


class _Comparison:
    """Two ONNX programs, and the correspondence between the names of their values."""

    def __init__(self, ours: Any, theirs: Any) -> None:
        self.ours, self.theirs = ours, theirs
        self._theirs_of: dict[str, str] = {"": ""}
        self._ours_of: dict[str, str] = {"": ""}

    def differences(self) -> list[str]:
        """List all differences, one line each."""
        found = [*self._ports(), *self._nodes(), *self._initializers(), *self._inner_shapes(), *self._texts()]
        found += self._names()
        if _rest(self.ours) != _rest(self.theirs):
            found.append("its head differs (opset, IR version, metadata), or it has parts that no export writes")
        return found or list(self._products())

    def _ports(self) -> Iterable[str]:
        for kind in ("input", "output"):
            expected, given = getattr(self.ours.graph, kind), getattr(self.theirs.graph, kind)
            if [port.SerializeToString() for port in expected] != [port.SerializeToString() for port in given]:
                names = short_repr([port.name for port in given])
                yield f"the {kind}s are {names} with other shapes or names than the export's"
            for ours, theirs in zip(expected, given, strict=False):
                self._same(ours.name, theirs.name)

    def _inner_shapes(self) -> Iterable[str]:
        """Shapes of inner values, which a reader may trust; none need be given."""
        infos = self.ours.graph.value_info
        expected = {self._theirs_of.get(item.name, item.name): _without(item, "name", *TEXTS) for item in infos}
        for item in self.theirs.graph.value_info:
            if _without(item, "name", *TEXTS) != expected.pop(item.name, None):  # none is given twice
                yield f"the shape of the inner value {short_repr(item.name)} is not that of the export"

    def _texts(self) -> Iterable[str]:
        """Texts that no export writes, anywhere in the file."""
        if self.ours.graph.name != self.theirs.graph.name:
            yield f"the graph is called {short_repr(self.theirs.graph.name)}, not {short_repr(self.ours.graph.name)}"
        for ours, theirs in self._parts():
            expected, given = _texts(ours), _texts(theirs)
            if expected != given:
                added = [*(Counter(given) - Counter(expected)), "fewer than the export"]
                yield f"it holds a text that no export writes: {short_repr(added[0])}"
                return

    def _parts(self) -> Iterable[tuple[Any, Any]]:
        """The parts of both programs that can hold texts; those of ports are compared with their shapes."""
        ours, theirs = self.ours.graph, self.theirs.graph
        yield from ((self.ours, self.theirs), (ours, theirs), *zip(ours.node, theirs.node, strict=False))
        for kind in ("initializer", "value_info"):
            given = {item.name: item for item in getattr(theirs, kind)}
            names = {item.name: self._theirs_of.get(item.name, item.name) for item in getattr(ours, kind)}
            yield from ((item, given[names[item.name]]) for item in getattr(ours, kind) if names[item.name] in given)

    def _names(self) -> Iterable[str]:
        """Names that no export chooses, which other programs print or look for."""
        if self.ours.producer_name != self.theirs.producer_name:
            yield f"it says that {short_repr(self.theirs.producer_name)} wrote it, not {self.ours.producer_name}"
        expected, given = _all_names(self.ours), _all_names(self.theirs)
        known = set(expected)
        for name in dict.fromkeys(given):
            if name not in known and (len(name) > MAX_NAME or not (name.isascii() and name.isprintable())):
                yield f"it has the name {short_repr(name)}, which no export chooses"
        length, longest = sum(map(len, given)), int(LONGER * sum(map(len, expected))) + FREE
        if length > longest:
            yield f"its names have {length} characters together, those of an export at most {longest}"

    def _nodes(self) -> Iterable[str]:
        ours, theirs = list(self.ours.graph.node), list(self.theirs.graph.node)
        matcher = difflib.SequenceMatcher(None, _operators(ours), _operators(theirs), autojunk=False)
        for tag, first, last, start, stop in matcher.get_opcodes():
            if tag == "equal":
                for expected, given in zip(ours[first:last], theirs[start:stop], strict=True):
                    yield from self._node(expected, given)
                continue
            for node in theirs[start:stop]:
                yield f"node {_label(node)} is not in the export"
            for node in ours[first:last]:
                yield f"node {_label(node)} of the export is missing"

    def _node(self, expected: Any, given: Any) -> Iterable[str]:
        ours, theirs = _attributes(expected), _attributes(given)
        for name in sorted({*ours, *theirs}):
            if len([item for item in given.attribute if item.name == name]) > 1:
                yield f"node {_label(given)} has attribute {_cut(name)} twice"
            elif ours.get(name) != theirs.get(name):
                values = [_value(node, name) for node in (given, expected)]
                yield f"node {_label(given)}: attribute {_cut(name)} is {values[0]} instead of {values[1]}"
        if _without(expected, *NODE_PARTS) != _without(given, *NODE_PARTS):
            yield f"node {_label(given)}: it has fields that no export writes"
        for kind in ("input", "output"):
            names, others = list(getattr(expected, kind)), list(getattr(given, kind))
            if len(names) != len(others):
                yield f"node {_label(given)} has {len(others)} {kind}s instead of {len(names)}"
            for ours_name, theirs_name in zip(names, others, strict=False):
                if not self._same(ours_name, theirs_name):
                    yield f"node {_label(given)}: {kind} {short_repr(theirs_name)} is another value than in the export"

    def _same(self, ours: str, theirs: str) -> bool:
        """Whether two names can be those of one value, given all that were seen before."""
        known = self._theirs_of.setdefault(ours, theirs) == theirs
        return self._ours_of.setdefault(theirs, ours) == ours and known

    def _initializers(self) -> Iterable[str]:
        given = {item.name: item for item in self.theirs.graph.initializer}
        calibrated = _calibrated(self.ours.graph)
        if len(given) != len(self.theirs.graph.initializer):
            yield "two initializers have one name"
        for item in self.ours.graph.initializer:
            found = given.pop(self._theirs_of.get(item.name, item.name), None)
            if found is None:
                yield f"initializer {short_repr(item.name)} of the export is missing"
            elif not _equal(item, found, calibrated.get(item.name, "")):
                yield _distance(item, found)
        for name in given:
            yield f"initializer {short_repr(name)} is not in the export"

    def _products(self) -> Iterable[str]:
        """Scales of biases that are not the product of the file's own scales, where those of the export are."""
        given = _errors_of_products(self.theirs.graph)
        for name, error in _errors_of_products(self.ours.graph).items():
            theirs = self._theirs_of.get(name, name)
            if error <= ROUNDING < given.get(theirs, 0.0):
                yield f"initializer {short_repr(theirs)} is not the product of the scales of the input and the weight"


def _texts(part: Any) -> list[str]:
    """The descriptions and metadata of a part of a program."""
    texts = [part.doc_string, *(f"{item.key}: {item.value}" for item in part.metadata_props)]
    return texts + [attribute.doc_string for attribute in getattr(part, "attribute", ())]


def _operators(nodes: Iterable[Any]) -> list[tuple[str, str]]:
    return [(node.domain, node.op_type) for node in nodes]


def _label(node: Any) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"{_cut(node.op_type)} ({short_repr(name)})"


def _cut(name: str) -> str:
    """A name without quotation marks, bounded in length."""
    return short_repr(name)[1:-1]


def _attributes(node: Any) -> dict[str, bytes]:
    found = {}
    for item in node.attribute:
        copy = onnx.AttributeProto()
        copy.CopyFrom(item)
        copy.ClearField("doc_string")
        found[item.name] = copy.SerializeToString(deterministic=True)
    return found


def _value(node: Any, name: str) -> str:
    values = [helper.get_attribute_value(item) for item in node.attribute if item.name == name]
    return short_repr(values[0]) if values else "not given"


def _without(item: Any, *fields: str) -> bytes:
    """The bytes of a part of a program without the fields that are compared or reported separately."""
    copy = type(item)()
    copy.CopyFrom(item)
    for field in fields:
        copy.ClearField(field)
    return bytes(copy.SerializeToString(deterministic=True))


def _all_names(program: Any) -> list[str]:
    graph = program.graph
    parts = (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    ports = (name for node in graph.node for name in (*node.input, *node.output))
    return [program.producer_version, *(part.name for part in parts), *ports]


def _rest(program: Any) -> bytes:
    """The bytes of a program without the fields that are compared separately, and without the version that wrote it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(program)
    for field in COMPARED:
        copy.graph.ClearField(field)
    for field in ("producer_name", "producer_version"):
        copy.ClearField(field)
    return bytes(copy.SerializeToString(deterministic=True))


def _calibrated(graph: Any) -> dict[str, str]:
    """Initializers that follow from calibration images: `scale`, and `bias` for those in quanta of such scales.

    The scales of 8-bit weights follow from the weights alone.
    """
    types = {item.name: item.data_type for item in graph.initializer}
    found, exact = {}, set()
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            stored = types.get(node.input[0])
            found[node.input[1]] = "scale"
            if stored == onnx.TensorProto.INT32:
                found[node.input[0]] = "bias"
            elif stored is not None:
                exact.add(node.input[1])
    return {name: kind for name, kind in found.items() if name in types and name not in exact}


def _errors_of_products(graph: Any) -> dict[str, float]:
    """By the scale of a bias: its relative distance from the product of the scales of the input and the weight.

    Args:
        graph: of a program whose tensors can be read.
    """
    tensors = {item.name: item for item in graph.initializer}
    scale_of = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in graph.node:
        names = [scale_of.get(name, "") for name in node.input[:3]]
        if len(names) == 3 and all(name in tensors for name in names):
            one, other, product = (np.asarray(_array(tensors[name]), np.float64) for name in names)
            if product.shape == (one * other).shape:
                found[names[2]] = float((np.abs(one * other - product) / np.maximum(np.abs(product), 1e-300)).max())
    return found


def _equal(ours: Any, theirs: Any, calibrated: str) -> bool:
    """Whether two tensors are equal except for their names, or within rounding if they follow from calibration.

    8-bit weights do not depend on it: one that lies within half a quantum of the run's is the same integer.
    """
    fields = ("name", *TEXTS)
    if _without(ours, *fields) == _without(theirs, *fields):
        return True
    twice = sum(len(getattr(theirs, field)) > 0 for field in STORAGE) > 1
    if not calibrated or twice or _without(ours, *fields, *STORAGE) != _without(theirs, *fields, *STORAGE):
        return False
    try:
        expected, given = (np.asarray(_array(item), np.float64) for item in (ours, theirs))
    except ValueError:  # the bytes of the second do not fit its shape
        return False
    quantum = 1.0 if calibrated == "bias" else 0.0
    return bool((np.abs(expected - given) <= SCALE * np.abs(expected) + quantum).all())


def _array(item: Any) -> np.ndarray:
    if item.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError("the values lie in another file")
    return np.asarray(numpy_helper.to_array(item))


def _distance(ours: Any, theirs: Any) -> str:
    label = f"initializer {short_repr(theirs.name)}"
    try:
        expected, given = _array(ours), _array(theirs)
    except Exception as cause:  # whatever the bytes provoke
        return f"{label} cannot be compared: {short_repr(str(cause))}"
    if expected.dtype == given.dtype and expected.shape == given.shape and np.array_equal(expected, given):
        return f"{label} is stored in another way than the export stores it"
    return tensor_difference(label, expected, given)
