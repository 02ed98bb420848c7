"""The same network with every zero filled: what a sparse bundle has to be compared with."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.onnx import count_nonzeros, weights_of
from robust_edge_runtimes.bundle import GOLDEN, Bundle, Golden, open_bundle, seal, write_golden
from robust_edge_runtimes.errors import InputError
from robust_edge_runtimes.latency import Contender
from robust_edge_runtimes.load import load

FILLABLE = ("onnx", "onnx-cuda")


@contextlib.contextmanager
def with_dense_baseline(given: Sequence[Contender]) -> Iterator[tuple[list[Contender], int]]:
    """Bundles to time and the index of the dense one among them.

    The first dense bundle given is the baseline. Where there is none, the first ONNX bundle is copied to a
    temporary folder with its zeros filled by small random values, and stands first.

    Raises:
        InputError: no dense bundle, and none that one can be made from.
    """
    for index, contender in enumerate(given):
        if contender.bundle.manifest.sparsity.nonzero == contender.bundle.manifest.sparsity.weights:
            yield list(given), index
            return
    for contender in given:
        if contender.bundle.manifest.artifact.format in FILLABLE:
            with tempfile.TemporaryDirectory() as folder:
                dense = _filled(contender.bundle, Path(folder))
                yield [Contender(f"{contender.label} (dense weights)", dense), *given], 0
            return
    raise InputError("no dense bundle to compare with; give one exported from a run with --keep 1")


def _filled(bundle: Bundle, folder: Path) -> Bundle:
    program = onnx.load(str(bundle.artifact_path))
    weighted = weights_of(program)
    random = np.random.default_rng(0)
    for item in program.graph.initializer:
        if item.name in weighted:
            item.CopyFrom(numpy_helper.from_array(_without_zeros(numpy_helper.to_array(item), random), item.name))
    onnx.save(program, str(folder / bundle.manifest.artifact.file))
    write_golden(folder / GOLDEN, bundle.golden())
    manifest = seal(folder, dataclasses.replace(bundle.manifest, sparsity=count_nonzeros(program)))
    write_golden(folder / GOLDEN, _own_answers(Bundle(folder, manifest)))
    seal(folder, manifest)
    return open_bundle(folder)


def _own_answers(dense: Bundle) -> Golden:
    """The golden images with the dense network's logits, since the stored ones are the sparse network's."""
    golden = dense.golden()
    with load(dense) as model:
        clean, attacked = model.infer(golden.clean), model.infer(golden.attacked)
    return dataclasses.replace(golden, clean_logits=clean, attacked_logits=attacked)


def _without_zeros(weight: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if weight.dtype == np.int8:
        return np.where(weight == 0, np.int8(1), weight)
    scale = float(np.abs(weight).mean()) or 1e-3
    noise = random.uniform(0.01, 0.1, weight.shape) * scale
    return np.where(weight == 0, noise, weight).astype(weight.dtype)
