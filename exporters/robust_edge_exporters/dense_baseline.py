"""The same network with every zero filled: what a sparse bundle has to be compared with."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.formats.onnx.export import FILE, count_nonzeros, weights_of
from robust_edge_exporters.formats.onnx.without_weights import GRAPH, with_random_weights
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.bench.latency import Contender
from robust_edge_runtimes.core.bundle import (
    GOLDEN,
    MAX_TOLERANCE,
    Bundle,
    Golden,
    expected_of,
    open_bundle,
    seal,
    write_golden,
)
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import Artifact, Manifest
from robust_edge_runtimes.load import load


@contextlib.contextmanager
def with_dense_baseline(given: Sequence[Contender]) -> Iterator[tuple[list[Contender], int]]:
    """Bundles to time and the index of the dense one among them.

    The first dense bundle given is the baseline; one that is dense because channels went is none. Where there is no
    other, one is made of the first that allows it, in a temporary folder, and stands first: of an ONNX bundle with its
    zeros filled by small random values, of a native bundle as ONNX from its graph with random weights.

    Raises:
        InputError: no dense bundle, and none that one can be made from.
    """
    for index, contender in enumerate(given):
        if _full(contender) and contender.bundle.manifest.compaction is None:
            yield list(given), index
            return
    for contender in given:
        if contender.bundle.manifest.artifact.format in MAKERS and not _full(contender):
            make, what = MAKERS[contender.bundle.manifest.artifact.format]
            with tempfile.TemporaryDirectory() as folder:
                dense = make(contender.bundle, Path(folder))
                yield [Contender(f"{contender.label} ({what})", dense, stand_in=True), *given], 0
            return
    raise InputError(
        "no dense bundle to compare with (one that lost channels does not count); give one exported from a run with "
        "--keep 1"
    )


def _full(contender: Contender) -> bool:
    """Whether no weight is zero; so it is with a dense network, and with one that lost whole channels."""
    sparsity = contender.bundle.manifest.sparsity
    return sparsity.nonzero == sparsity.weights


def _filled(bundle: Bundle, folder: Path) -> Bundle:
    program = onnx.load(str(bundle.artifact_path))
    weighted = weights_of(program)
    random = np.random.default_rng(0)
    for item in program.graph.initializer:
        if item.name in weighted:
            item.CopyFrom(numpy_helper.from_array(_without_zeros(numpy_helper.to_array(item), random), item.name))
    return _sealed(program, bundle, bundle.manifest, folder)


def _rebuilt(bundle: Bundle, folder: Path) -> Bundle:
    """The network of a native bundle as the ONNX that its own was generated from, every weight another one."""
    if GRAPH not in bundle.manifest.files:
        raise InputError(f"{bundle.path} has no {GRAPH} to make a dense network of; give a dense bundle beside it")
    program = with_random_weights(onnx.load(str(bundle.path / GRAPH), load_external_data=False))
    opset = next(item.version for item in program.opset_import if item.domain in ("", "ai.onnx"))
    manifest = dataclasses.replace(
        bundle.manifest,
        target=target_named(bundle.manifest.target).made_from or bundle.manifest.target,
        artifact=Artifact(FILE, "onnx", "fp32", "", 0, opset, program.ir_version),
        layers=(),
        size=None,
        parity=None,
        notes=(),
    )
    return _sealed(program, bundle, manifest, folder)


def _sealed(program: Any, bundle: Bundle, manifest: Manifest, folder: Path) -> Bundle:
    """The dense network as a bundle of its own, with the images of the given one."""
    onnx.save(program, str(folder / manifest.artifact.file))
    golden = bundle.golden()
    tolerance = min(golden.tolerance, MAX_TOLERANCE[manifest.artifact.precision])
    write_golden(folder / GOLDEN, dataclasses.replace(golden, tolerance=tolerance))
    manifest = seal(folder, dataclasses.replace(manifest, sparsity=count_nonzeros(program)))
    golden = _own_answers(Bundle(folder, manifest))
    write_golden(folder / GOLDEN, golden)
    seal(folder, dataclasses.replace(manifest, expected=expected_of(golden, manifest.expected.attack)))
    return open_bundle(folder)


def _own_answers(dense: Bundle) -> Golden:
    """The golden images with the dense network's logits, since the stored ones are the sparse network's."""
    golden = dense.golden()
    with load(dense) as model:
        clean, attacked = model.infer_all(golden.clean), model.infer_all(golden.attacked)
    return dataclasses.replace(golden, clean_logits=clean, attacked_logits=attacked)


def _without_zeros(weight: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if weight.dtype == np.int8:
        return np.where(weight == 0, np.int8(1), weight)
    scale = float(np.abs(weight).mean()) or 1e-3
    noise = random.uniform(0.01, 0.1, weight.shape) * scale
    return np.where(weight == 0, noise, weight).astype(weight.dtype)


MAKERS: dict[str, tuple[Callable[[Bundle, Path], Bundle], str]] = {
    "native": (_rebuilt, "dense weights, ONNX Runtime"),
    "onnx": (_filled, "dense weights"),
    "onnx-cuda": (_filled, "dense weights"),
}
