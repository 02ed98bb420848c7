"""The description of a bundle: `manifest.json`, schema version 1."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from typing import Any, Dict, Iterable, Optional, Tuple, Union

from robust_edge_runtimes.core.decode import decode, short_repr
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.preprocessing import Preprocessing

SCHEMA_VERSION = 1
MAX_INPUT_VALUES = 1 << 28
NO_IMAGES = "no images"
"""The data set of a bundle that was exported without images: its stored images are noise, labelled by the network."""
PRECISIONS = ("fp32", "fp16", "int8")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # line breaks and terminal escapes: names are printed


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name and shape. The first axis is None where the batch size is free."""

    name: str
    shape: Tuple[Optional[int], ...]
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Companion:
    """A file that the model file needs or comes with: its weights, its C header, its compiled library."""

    file: str
    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Artifact:
    """The model file: its name, its format and the hash that identifies it.

    Attributes:
        companions: the other files of a model that consists of several, sorted by name. They are part of the
            artifact: with other companions it is another artifact.
    """

    file: str
    format: str
    precision: str
    sha256: str
    bytes: int
    opset: Optional[int] = None
    ir_version: Optional[int] = None
    companions: Tuple[Companion, ...] = ()

    @property
    def identity(self) -> str:
        """64 hex digits that identify every byte of the model.

        The SHA-256 of the file; with companions, the SHA-256 of what `sha256sum` prints for the file and them, in
        order.
        """
        if not self.companions:
            return self.sha256
        sums = [(self.sha256, self.file), *((item.sha256, item.file) for item in self.companions)]
        return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in sums).encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Bytes of the file and its companions."""
        return self.bytes + sum(item.bytes for item in self.companions)

    @property
    def files(self) -> Tuple[str, ...]:
        """Names of the file and its companions."""
        return (self.file, *(item.file for item in self.companions))


@dataclasses.dataclass(frozen=True)
class LayerCount:
    """The numbers of weights and of non-zero weights of one prunable layer, counted in the artifact."""

    name: str
    weights: int
    nonzero: int

    @property
    def keep(self) -> float:
        """Fraction of the layer's weights that are not zero."""
        return self.nonzero / self.weights


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """The numbers of weights and of non-zero weights of all prunable layers, counted in the artifact."""

    weights: int
    nonzero: int
    layers: Tuple[LayerCount, ...]

    @staticmethod
    def of_layers(layers: Iterable[LayerCount]) -> Sparsity:
        """The sums over `layers`."""
        counts = tuple(layers)
        return Sparsity(sum(item.weights for item in counts), sum(item.nonzero for item in counts), counts)

    @property
    def keep(self) -> float:
        """Fraction of the prunable weights that are not zero."""
        return self.nonzero / self.weights


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """How the artifact stores and runs one layer.

    Attributes:
        form: `csr` or `dense`; in the sparse engine the name of the kernel, such as `sparse`.
        nonzero: number of `weights` that are not zero.
        csr_ns: minimum time of the layer as CSR on the exporting machine for one image on one thread; None where
            the form was not chosen by timing.
        dense_ns: the same as a dense layer.
        macs: multiply-accumulates of one image with the non-zero weights; None where they were not counted.
        dense_macs: the same with all weights.
    """

    name: str
    form: str
    weights: int
    nonzero: int
    csr_ns: Optional[int] = None
    dense_ns: Optional[int] = None
    macs: Optional[int] = None
    dense_macs: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Size:
    """What the zeros save in bytes.

    Attributes:
        artifact: bytes of the artifact, its companions included.
        compressed: bytes of the same files, each compressed by zlib at level 6.
        dense: bytes of the prunable weights of the checkpoint as dense fp32.
        weights: bytes of the companion that holds the weights; None where the artifact's own file holds them.
    """

    artifact: int
    compressed: int
    dense: int
    weights: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Compaction:
    """What was removed from the network before the export without a change of its outputs.

    Attributes:
        channels: number of removed channels.
        parameters: number of parameters of the checkpoint.
        parameters_left: number of parameters of the exported network.
        macs: multiply-accumulates of the checkpoint for one image, zeros included.
        macs_left: the same of the exported network.
        bytes: bytes of the checkpoint's parameters as fp32.
        bytes_left: the same of the exported network.
    """

    channels: int
    parameters: int
    parameters_left: int
    macs: int
    macs_left: int
    bytes: int
    bytes_left: int


@dataclasses.dataclass(frozen=True)
class Choices:
    """What was chosen at export and stands nowhere else in the manifest; `verify` exports the run with it again.

    Attributes:
        compact: channels that do nothing were removed from the network first.
        calibration: number of training images that the ranges of int8 were read from; 0 where there are no ranges.
        options: the values of the format's own options by name; None where the format chose by itself.
        held_out: number of other training images by which the way of calibration was chosen.
        calibration_method: the one that was chosen, such as `percentile-99.99`; None where there are no ranges.
    """

    compact: bool
    calibration: int
    options: Dict[str, Union[bool, int, float, str, None]] = dataclasses.field(default_factory=dict)
    held_out: int = 0
    calibration_method: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class ExportParity:
    """How far the artifact's logits were from the checkpoint's on the golden images when it was exported.

    Attributes:
        max_logit_error: largest error, relative to the largest absolute logit.
        argmax_agreement: fraction of the images, clean and attacked, that get the same class.
        tolerance: largest error with which `verify` still accepts the artifact as the same network.
        checked_with: backend and device that ran the artifact.
    """

    max_logit_error: float
    argmax_agreement: float
    tolerance: float
    checked_with: str


@dataclasses.dataclass(frozen=True)
class Source:
    """The run that the artifact was exported from."""

    run: str
    checkpoint_sha256: str
    arch: str
    dataset: str
    dataset_fingerprint: str
    versions: Dict[str, str]


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """The record of an attack and its ℓ∞ threat.

    Attributes:
        eps: radius in pixel units on [0, 1].
        steps: gradient steps, or queries of an attack that sees only logits.
        step_size: length of a gradient step in pixel units; 0 for an attack that sees only logits.
        seed: of all random choices.
    """

    name: str
    eps: float
    steps: int
    step_size: float
    seed: int

    def describe(self, *, queries: bool = False) -> str:
        """The attack in a text, such as `PGD-50`, or `Square, 500 queries` if `steps` is a number of queries."""
        if queries:
            return f"{self.name.capitalize()}, {self.steps} queries"
        return f"{self.name.upper()}-{self.steps}"


@dataclasses.dataclass(frozen=True)
class Expected:
    """The checkpoint's own accuracy on the golden images, each in [0, 1]."""

    images: int
    clean_accuracy: float
    robust_accuracy: float
    attack: AttackSpec


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """One file of the bundle."""

    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything that is needed to use and to judge the artifact.

    Attributes:
        layers: how each layer is stored, where the exporter had a choice.
        notes: what a reader should know about this artifact, one sentence each.
        compaction: what was removed from the network before the export; None where nothing was.
        choices: what was chosen at export; None in bundles of releases that did not record it.
        preprocessing: how pictures become images of the network; None as for `choices`.
    """

    schema_version: int
    target: str
    artifact: Artifact
    input: TensorSpec
    input_range: Tuple[float, ...]
    output: TensorSpec
    classes: Tuple[str, ...]
    sparsity: Sparsity
    source: Source
    expected: Expected
    files: Dict[str, FileEntry]
    layers: Tuple[LayerForm, ...] = ()
    size: Optional[Size] = None
    parity: Optional[ExportParity] = None
    notes: Tuple[str, ...] = ()
    compaction: Optional[Compaction] = None
    choices: Optional[Choices] = None
    preprocessing: Optional[Preprocessing] = None

    def to_json(self) -> Dict[str, Any]:
        """The manifest as plain values, ready for a JSON writer."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Any, where: str = "manifest.json") -> Manifest:
        """Check and build a manifest from parsed JSON.

        Raises:
            BundleError: the schema version is another, or a field is missing, unknown or of another type.
        """
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{where}: schema_version is {short_repr(version)}, but this release reads {SCHEMA_VERSION}; "
                "export the bundle again, or install the release that wrote it"
            )
        manifest = decode(Manifest, value, where=where, error=BundleError)
        _check_values(manifest, where)
        return manifest


def _check_values(manifest: Manifest, where: str) -> None:
    _check_tensors(manifest, where)
    source, parity = manifest.source, manifest.parity
    origin = (source.run, source.arch, source.dataset, *(text for item in source.versions.items() for text in item))
    checked = () if parity is None else (parity.checked_with,)
    for name in (manifest.target, *manifest.classes, *manifest.notes, *origin, *checked):
        if _CONTROL.search(name):
            raise _invalid(where, f"the name {short_repr(name)} contains a control character")
    _check_expected(manifest.expected, where)
    _check_artifact(manifest, where)
    _check_sparsity(manifest.sparsity, where)
    if manifest.choices is not None and manifest.choices.calibration < 0:
        raise _invalid(where, f"choices.calibration is {manifest.choices.calibration}")


def _check_tensors(manifest: Manifest, where: str) -> None:
    shape, outputs = manifest.input.shape, manifest.output.shape
    if len(shape) != 4 or None in shape[1:] or any(size is not None and size < 1 for size in shape):
        raise _invalid(where, f"input.shape must be [N or null, C, H, W], it is {list(shape)}")
    if math.prod(size or 1 for size in shape) > MAX_INPUT_VALUES:
        raise _invalid(where, f"input.shape {list(shape)} has more than {MAX_INPUT_VALUES} values in one batch")
    if len(outputs) != 2 or outputs[1] != len(manifest.classes) or not manifest.classes:
        raise _invalid(where, f"output.shape is {list(outputs)}, but there are {len(manifest.classes)} classes")
    rules = manifest.preprocessing or Preprocessing()
    if rules.problem is not None or rules.frame not in (None, tuple(shape[2:])):
        raise _invalid(where, f"preprocessing does not give the images of the input ({rules.problem or rules.frame})")
    if manifest.input.dtype != "float32" or manifest.output.dtype != "float32":
        raise _invalid(where, "input.dtype and output.dtype must be float32")
    if len(manifest.input_range) != 2 or not manifest.input_range[0] < manifest.input_range[1]:
        raise _invalid(where, f"input_range must be [low, high], it is {list(manifest.input_range)}")


def _check_artifact(manifest: Manifest, where: str) -> None:
    artifact = manifest.artifact
    if manifest.files.get(artifact.file) != FileEntry(artifact.sha256, artifact.bytes):
        raise _invalid(where, f"artifact.file {short_repr(artifact.file)} does not agree with files")
    if artifact.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise _invalid(where, f"artifact.precision {short_repr(artifact.precision)} is not one of {known}")
    for item in artifact.companions:
        if manifest.files.get(item.file) != FileEntry(item.sha256, item.bytes):
            raise _invalid(where, f"artifact.companions: {short_repr(item.file)} does not agree with files")
    names = [item.file for item in artifact.companions]
    if names != sorted(set(names)) or artifact.file in names:
        raise _invalid(where, "artifact.companions must be sorted by name, each once, without artifact.file")


def _check_sparsity(sparsity: Sparsity, where: str) -> None:
    if any(not 0 <= layer.nonzero <= layer.weights for layer in sparsity.layers):
        raise _invalid(where, "a layer in sparsity.layers has more non-zeros than weights")
    total = Sparsity.of_layers(sparsity.layers)
    if total.weights != sparsity.weights or sparsity.weights < 1:
        raise _invalid(where, f"sparsity.weights is {sparsity.weights}, but its layers have {total.weights}")
    if total.nonzero != sparsity.nonzero:
        raise _invalid(where, f"sparsity.nonzero is {sparsity.nonzero}, but its layers have {total.nonzero}")


def _invalid(where: str, problem: str) -> BundleError:
    return BundleError(f"{where}: {problem}; the file was edited or damaged, export the bundle again")


def _check_expected(expected: Expected, where: str) -> None:
    accuracies, attack = (expected.clean_accuracy, expected.robust_accuracy), expected.attack
    if expected.images < 1 or not all(0 <= accuracy <= 1 for accuracy in accuracies):
        raise _invalid(where, "expected has no images, or an accuracy outside [0, 1]")
    if not (0 <= attack.eps <= 1 and 0 <= attack.step_size <= 255):
        raise BundleError(f"{where}: expected.attack has eps {attack.eps:g} and step_size {attack.step_size:g}")
    if attack.steps < 0 or attack.seed < 0:
        raise BundleError(f"{where}: expected.attack has a negative number of steps or a negative seed")
