"""Import an ONNX file: its graph becomes the architecture of the run, and its weights the checkpoint."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from robust_edge.importing.graph_shapes import (
    with_constant_branches,
    with_constant_shapes,
    with_constant_squeezes,
)
from robust_edge.importing.graph_surgery import (
    fix_image_shape,
    with_channels_first,
    without_dropout,
    without_softmax,
)
from robust_edge.importing.reference import run_graph
from robust_edge.importing.source import Request, Source
from robust_edge.models.table import GRAPH
from robust_edge.onnx_graph.error import GraphError
from robust_edge.onnx_graph.file import read_program
from robust_edge.onnx_graph.network import OnnxNetwork
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError
from robust_edge_runtimes.core.limits import TimeLimit

OLDEST_OPSET = 11
ROUNDED = 1e-2
"""Of probabilities, also of 16 bits."""
PROBABILITIES = (
    "the outputs are probabilities, whose gradients are too small to attack where the network is sure; export it "
    "without what computes them from logits"
)
ALONE = 16  # images of a batch that are computed one by one, too
TOLERANCE = 1e-4
"""Largest allowed error of the logits, relative to the largest logit, against the file in ONNX Runtime."""
WAY_OUT = "export the fp32 network without that, or import its weights as a state dict with `arch`"


def read_onnx(request: Request) -> Source:
    """Build the network of an ONNX file and compare its logits with those of the file.

    Raises:
        InputError: the file cannot be read, or holds something that is not covered, named by its node.
    """
    with TimeLimit(str(request.path), InputError).opening():
        program = read_program(request.path)
        try:
            return _read(_without_functions(program), request)
        except MemoryError:
            raise
        except RobustEdgeError as cause:
            if str(request.path) not in str(cause):
                cause.args = (f"{request.path}: {cause}",)
            raise
        except Exception as cause:  # a graph that breaks the rules of ONNX can raise any
            reason = _invalidity(request)
            if reason is None:
                raise
            raise InputError(f"{request.path} is not a valid ONNX graph: {reason}") from cause


def _read(program: Any, request: Request) -> Source:
    _refuse_versions(program, request)
    notes = with_channels_first(program, request.shape)
    shape, batch = fix_image_shape(program, request.shape, str(request.path))
    program, changes = _without_softmax(program, shape, batch or 2)
    notes += [*without_dropout(program), *changes]
    try:
        program = with_constant_branches(program, shape, batch)
        network = OnnxNetwork(with_constant_shapes(with_constant_squeezes(program, shape, batch), shape, batch))
    except GraphError as cause:
        raise InputError(f"{request.path}: {cause}; {WAY_OUT}") from cause
    expected, error = _compared(program, network, shape, batch, request)
    if _are_probabilities(expected):
        notes.append(PROBABILITIES)
    notes.append(f"logits within {error:.1g} of those of ONNX Runtime, relative to the largest")
    return Source(network=network, arch=GRAPH, shape=shape, classes=expected.shape[1], notes=tuple(notes))


def _without_softmax(program: Any, shape: tuple[int, ...], count: int) -> tuple[Any, list[str]]:
    """A program without its last softmax, if that gives the probabilities of an image's classes; and what was done."""
    changed = type(program)()
    changed.CopyFrom(program)
    notes = without_softmax(changed)
    if not notes:
        return program, []
    try:
        (_, before), (_, after) = (_run_on_noise(one, shape, count) for one in (program, changed))
    except InputError:  # a graph that cannot be run is refused later, with what is wrong in it
        return program, []
    if before.ndim != 2 or after.shape != before.shape:
        return program, []
    with np.errstate(all="ignore"):
        powers = np.exp(after - after.max(1, keepdims=True, initial=-np.inf))
        probabilities = before if _are_probabilities(before) else np.exp(before)
        same = bool(np.abs(powers / powers.sum(1, keepdims=True) - probabilities).max(initial=0.0) < ROUNDED)
    return (changed, notes) if same else (program, [])


def _are_probabilities(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (np.abs(values.sum(1) - 1) < ROUNDED).all())


def _without_functions(program: Any) -> Any:
    """The program with the calls of its own functions replaced by their nodes; some versions of torch write such."""
    if not program.functions:
        return program
    from onnx.inliner import inline_local_functions

    return inline_local_functions(program)


def _invalidity(request: Request) -> str | None:
    """What the checker of ONNX or ONNX Runtime finds wrong with a file; None if both take it."""
    import onnx

    program = read_program(request.path)
    try:
        onnx.checker.check_model(program)
        with_channels_first(program, request.shape)
        shape, batch = fix_image_shape(program, request.shape, str(request.path))
        run_graph(program, np.zeros((batch or 2, *shape), np.float32), [program.graph.output[0].name])
    except Exception as cause:  # each of them has classes of its own
        return " ".join(str(cause).split())[:300]
    return None


def _refuse_versions(program: Any, request: Request) -> None:
    from onnx import IR_VERSION
    from onnx.defs import onnx_opset_version

    opset = max((item.version for item in program.opset_import if item.domain in ("", "ai.onnx")), default=0)
    if not OLDEST_OPSET <= opset <= onnx_opset_version():
        raise InputError(
            f"{request.path} is of opset {opset}, {OLDEST_OPSET} to {onnx_opset_version()} can be imported; convert it "
            "with onnx.version_converter"
        )
    if program.ir_version > IR_VERSION:
        raise InputError(
            f"{request.path} is of IR version {program.ir_version}, {IR_VERSION} is the newest of onnx here"
        )
    if program.graph.sparse_initializer:
        raise InputError(f"{request.path} holds sparse initializers; write its weights as dense ones")


def _compared(
    program: Any, network: OnnxNetwork, shape: tuple[int, ...], batch: int | None, request: Request
) -> tuple[np.ndarray, float]:
    """The logits of the file and the error of the network's; images alone and in a batch must give the same."""
    count = batch or 2
    images, expected = _run_on_noise(program, shape, count)
    _refuse_other_outputs(expected, len(images), request)
    _refuse_undefined(expected, program, request)
    fixed = f"{request.path} was written for batches of {count} images and cannot be made to take others"
    if batch is None:
        fixed = f"{request.path} cannot be made to take any number of images"
    try:
        with torch.no_grad():
            together = network(torch.from_numpy(images)).numpy()
            alone = np.concatenate([network(torch.from_numpy(image[None])).numpy() for image in images[:ALONE]])
    except GraphError as cause:
        raise InputError(f"{request.path if batch is None else fixed}: {cause}; {WAY_OUT}") from cause
    few = expected[:ALONE]
    if not (together.shape == expected.shape and alone.shape == few.shape):
        raise InputError(
            f"{fixed}: {len(images)} images give {len(together)} rows of logits, {len(few)} one by one {len(alone)}"
        )
    largest = float(np.abs(expected).max()) or 1.0
    with np.errstate(all="ignore"):  # infinity and NaN come out as such, and are refused
        error = float(np.max([np.abs(together - expected).max(), np.abs(alone - few).max()])) / largest
        apart = float(np.abs(together[:ALONE] - alone).max()) / largest
    if apart > TOLERANCE:
        raise InputError(
            f"{request.path} gives an image other logits alone than beside others, by {apart:.2g} (relative); export a "
            "network that computes nothing over a batch"
        )
    if not (math.isfinite(error) and error <= TOLERANCE):
        raise InputError(
            f"{request.path}: the network in torch gives logits that differ by {error:.2g} (relative) from those of "
            "ONNX Runtime; export it in fp32 if it computes with 16 bits, otherwise please report the file"
        )
    return expected, error


def _run_on_noise(program: Any, shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two batches of noise and their outputs; of positive noise where the graph has no numbers for negative values."""
    generator, output = np.random.default_rng(0), [program.graph.output[0].name]
    for draw in (generator.standard_normal, generator.random):
        images = draw((2 * count, *shape), dtype=np.float32)
        parts = [run_graph(program, part, output)[0] for part in (images[:count], images[count:])]
        if all(isinstance(part, np.ndarray) and np.isfinite(part).all() for part in parts):
            break
    return images, np.concatenate(parts)


def _refuse_other_outputs(found: np.ndarray, count: int, request: Request) -> None:
    """Refuse what is not one row of at least two logits for an image."""
    if found.ndim == 2 and found.shape == (count, 1) and found.dtype.kind == "f":
        raise InputError(f"{request.path} gives one value for an image; export two logits, such as 0 and that value")
    if found.dtype.kind != "f":
        raise InputError(f"{request.path} gives {found.dtype}, not logits; export the network without its ArgMax")
    if found.ndim != 2 or len(found) != count:
        raise InputError(
            f"{request.path} gives an output of shape {found.shape} for {count} images, expected (N, K), the logits of "
            "a classifier"
        )


def _refuse_undefined(found: np.ndarray, program: Any, request: Request) -> None:
    """Refuse logits that are not finite; weights are the usual cause."""
    from onnx import numpy_helper

    if np.isfinite(found).all():
        return
    floats = [(item.name, np.array(numpy_helper.to_array(item))) for item in program.graph.initializer]
    causes = [name for name, value in floats if value.dtype.kind == "f" and not np.isfinite(value).all()]
    because = f"; {causes[0]!r} holds NaN or infinity" if causes else ""
    raise InputError(f"{request.path} gives logits that are NaN or infinite{because}; train it again, or in fp32")
