"""Export an untrained network to each target and run the exported files: one result per target, within seconds.

There is no list of supported operators. Each format's own export reports what it cannot write.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.onnx_graph.network import read_network
from robust_edge.pruning.parametrised import materialised
from robust_edge.pruning.prunable import why_unprunable
from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.format_option import resolved
from robust_edge_exporters.formats.onnx.conversions import Conversions, shared_conversions
from robust_edge_exporters.formats.onnx.export import converted
from robust_edge_exporters.formats.table import format_named, options_of
from robust_edge_exporters.quantisation import TooFewBits
from robust_edge_exporters.target import Target, target_named
from robust_edge_exporters.tolerance import ill_conditioned
from robust_edge_exporters.weight_uses import LeftOut, weight_uses
from robust_edge_runtimes.core.errors import ExportError, InputError, RobustEdgeError, middle_cut
from robust_edge_runtimes.core.limits import TimeLimit
from robust_edge_runtimes.scoring import relative_error

DEFAULT_TARGETS = ("x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse", "x86-cpu-sparse-int8")
BATCHES = (1, 3)
CALIBRATION = 8
DIFFERENCE = 1e-2
"""Relative: far more than rounding does, far less than another network."""
WAY_OUT = "change that part of the network, or see by `robust-edge check` which targets work"
NODE = re.compile(r"(\w+) (?:at|of) node '([^']+)'")


@dataclasses.dataclass(frozen=True)
class TargetCheck:
    """The result for one target.

    Attributes:
        problem: why the export fails and what to do instead, in one line; "" if the target works.
    """

    target: str
    precision: str
    problem: str = ""

    @property
    def works(self) -> bool:
        """Whether the network can be exported to the target and verified there."""
        return not self.problem


@dataclasses.dataclass(frozen=True)
class NetworkCheck:
    """The results for a network.

    Attributes:
        weights: number of prunable weights.
        layers: names of the prunable tensors in the order of their use.
        left_out: tensors that look like weights or are used like them, but are not prunable.
        unprunable: why the network cannot be pruned, and what to do; "" if it can be.
    """

    weights: int
    layers: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    unprunable: str
    targets: tuple[TargetCheck, ...]


def check_network(
    model: nn.Module,
    shape: tuple[int, ...],
    targets: Sequence[Target],
    progress: Callable[[int, int], None] | None = None,
) -> NetworkCheck:
    """Check a network that `build_model` has built.

    Args:
        model: not changed.
        shape: (C, H, W) of one image.
        targets: rows of the table.
        progress: called with (targets checked, number of targets).
    """
    network = _Network(materialised(model).eval(), shape)
    found, results = network.found, []
    with shared_conversions() as conversions:
        for done, target in enumerate(targets):
            with TimeLimit(f"the network to {target.name}", InputError).opening(compiles=True, action="exporting"):
                results.append(_check_target(network, target, conversions))
            if progress is not None:
                progress(done + 1, len(targets))
    working = [result.target for result in results if result.works]
    return NetworkCheck(
        weights=network.weights,
        layers=tuple(use.name for use in found.uses),
        left_out=found.left_out,
        unprunable=why_unprunable(found),
        targets=tuple(_with_way_out(result, working) for result in results),
    )


def require_targets(model: nn.Module, shape: tuple[int, ...], targets: Sequence[Target]) -> None:
    """Check that a network can be exported to every one of these targets.

    Raises:
        ExportError: what stands in the way of each that it cannot be exported to.
    """
    answers = check_network(model, shape, targets).targets
    refused = [f"the network cannot be exported to {item.target}: {item.problem}" for item in answers if not item.works]
    if refused:
        raise ExportError(". And ".join(refused))


def require_any_target(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Check that a network can be exported at all: to TorchScript, which takes the least time, or else to ONNX.

    Raises:
        ExportError: neither works; names what stands in the way of ONNX.
    """
    torchscript, onnx = (target_named(name) for name in ("x86-cpu-csr", "x86-cpu"))
    if check_network(model, shape, [torchscript]).targets[0].works:
        return
    (result,) = check_network(model, shape, [onnx]).targets
    if not result.works:
        raise ExportError(f"the network cannot be exported to any target, so it is not trained: {result.problem}")


class _Network:
    """A network, with what all targets compare with; each of it is computed once.

    Attributes:
        shape: (C, H, W).
        images: (CALIBRATION, C, H, W).
        found: what its weights are used for.
        weights: number of prunable weights.
        sources: why an fp32 program is not the network, "" if it is, by the program's hash.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        self.model, self.shape, self.found = model, shape, weight_uses(model, shape)
        self.images = torch.rand(CALIBRATION, *shape, generator=torch.Generator().manual_seed(0))
        named = dict(model.named_parameters())
        self.weights = sum(named[use.name].numel() for use in self.found.uses)
        self.sources: dict[str, str] = {}
        self._logits: dict[int, np.ndarray] = {}

    def logits(self, count: int) -> np.ndarray:
        """(count, K): of the first images in one batch."""
        if count not in self._logits:
            try:
                with torch.no_grad():
                    self._logits[count] = self.model(self.images[:count]).numpy()
            except Exception as cause:  # the network is the user's; it may raise anything
                reason = " ".join(str(cause).split())[:300]
                raise InputError(f"the network cannot take {count} images: {reason}") from cause
        return self._logits[count]


def _check_target(network: _Network, target: Target, conversions: Conversions) -> TargetCheck:
    precision = target.precision(None)
    settings = ExportSettings(
        precision=precision,
        calibration=network.images.numpy() if precision == "int8" else None,
        options=resolved(options_of(target.format), {}),
        layer_forms={},
        compile_library=False,
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and ONNX Runtime, about themselves
        try:
            artifact = format_named(target.format).export(network.model, network.shape, target, folder, settings)
            path = Path(folder) / artifact.file
            problem = _miscounted(network, artifact) or _problem(network, path, precision) or _flat(network, path)
            if not problem and (precision != "fp32" or path.suffix == ".c"):
                problem = _problem_of_source(network, target, folder)
        except TooFewBits:  # for these weights; the export judges the trained ones
            problem = ""
        except RobustEdgeError as cause:
            problem = middle_cut(" ".join(str(cause).split()), RobustEdgeError.longest)
    return TargetCheck(target.name, precision, _with_source(problem, conversions, target))


def _miscounted(network: _Network, artifact: ExportedArtifact) -> str:
    """What the export would refuse: a file that holds another number of prunable weights than the network."""
    held, weights = artifact.sparsity.weights, network.weights
    return "" if held == weights else f"the file holds {held} prunable weights, the network {weights}"


def _problem(network: _Network, path: Path, precision: str) -> str:
    """Run the file and its twin on one image and on a batch; "" if their logits are the network's."""
    runners = _runners(path)
    for count in BATCHES:
        for name, infer in runners.items():
            expected, logits = network.logits(count), infer(network.images[:count])
            if logits.shape != expected.shape:
                return f"{name} gives logits of shape {logits.shape} for {count} images, the network {expected.shape}"
            error = relative_error(logits, expected)
            if precision == "fp32" and not error <= DIFFERENCE:
                found = f"{name} computes something else: logits of {count} images are off by {error:.2g} (relative)"
                return found + ill_conditioned(network.model, network.images.numpy())
    return ""


def _flat(network: _Network, path: Path) -> str:
    """Why `verify` could not take gradients of a TorchScript file; "" if it could, or the network has none either."""
    if path.suffix != ".ts":
        return ""
    images = network.images[:1]
    if not _gradient(network.model, images).any() or _gradient(torch.jit.load(str(path)), images).any():
        return ""
    return (
        "TorchScript does not keep the gradient that the network gives to an operation of its own, such as rounding; "
        "`verify` could not attack the file, since all gradients are zero"
    )


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    """Of the sum of the squared logits with respect to the images, of the same shape; zero where there is none."""
    images = images.clone().requires_grad_()
    try:
        loss = model(images.clone()).square().sum()  # a network may write into its input
        return torch.autograd.grad(loss, images, materialize_grads=True)[0]
    except Exception:  # without a gradient torch raises many types of errors, and so may code of the user's
        return torch.zeros_like(images)


def _problem_of_source(network: _Network, target: Target, folder: str) -> str:
    """Run the fp32 program that a file of 8 or 16 bits, or of C, was made from: it can be compared closely."""
    made_from = target if target.made_from is None else target_named(target.made_from)
    program = converted(network.model, network.shape, made_from).SerializeToString()
    sha256 = hashlib.sha256(program).hexdigest()
    if sha256 not in network.sources:
        path = Path(folder) / "fp32.onnx"
        path.write_bytes(program)
        network.sources[sha256] = _problem(network, path, "fp32")
    return network.sources[sha256]


def _runners(path: Path) -> dict[str, Callable[[Tensor], np.ndarray]]:
    """Functions that run a file, by name; none for C, which has to be compiled first."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as cause:  # ONNX Runtime's classes have no other base
            reason = " ".join(str(cause).split())[:300]
            raise ExportError(f"ONNX Runtime cannot open the file: {reason}") from cause
        port = session.get_inputs()[0].name
        twin = read_network(path)
        return {
            "the file": lambda images: session.run(None, {port: images.numpy()})[0],
            "its twin, which verify takes gradients of,": lambda images: twin(images).detach().numpy(),
        }
    if path.suffix == ".ts":
        scripted = torch.jit.load(str(path))
        return {"the file": lambda images: scripted(images).detach().numpy()}
    return {}


def _with_source(problem: str, conversions: Conversions, target: Target) -> str:
    """Append the module and the source line of the network to the name of a node."""
    found = NODE.search(problem)
    source = conversions.sources.get(found.group(2)) if found else None
    if found is None or source is None:
        return problem
    return f"{problem[: found.end()]} ({source}){problem[found.end() :]}"


def _with_way_out(result: TargetCheck, working: Sequence[str]) -> TargetCheck:
    if result.works:
        return result
    family = target_named(result.target).machines
    near = [name for name in working if target_named(name).machines == family] or [*working]
    instead = f"use {' or '.join(f'--target {name}' for name in near)}" if near else WAY_OUT
    return dataclasses.replace(result, problem=f"{result.problem}; {instead}")
