"""What a bundle says of itself: `manifest.json`, schema version 1."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from typing import Any, Dict, Optional, Tuple

from robust_edge_runtimes.core.decode import SHOWN, decode
from robust_edge_runtimes.core.errors import BundleError

SCHEMA_VERSION = 1
MAX_PIXELS = 1 << 28
PRECISIONS = ("fp32", "fp16", "int8")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # line breaks, terminal escapes: names are shown to people


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name and shape, the first axis `None` where any N is taken."""

    name: str
    shape: Tuple[Optional[int], ...]
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class Companion:
    """A file that belongs to the model file: its weights, its header, what it was compiled to."""

    file: str
    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Artifact:
    """The model file: where it is, what it is, and the proof that it is the same file.

    Attributes:
        companions: the other files of a model that is more than one, sorted by name; without them, or with others,
            it is another artifact.
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
        """64 hex digits that stand for every byte of the model.

        The file's SHA-256; with companions the SHA-256 of what `sha256sum` prints for the file and them, in order.
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
    """The weights of one prunable layer, counted in the artifact."""

    name: str
    weights: int
    nonzero: int

    @property
    def keep(self) -> float:
        """Fraction of the layer's weights that are not zero."""
        return self.nonzero / self.weights


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """Non-zero weights over all prunable layers, counted in the artifact."""

    weights: int
    nonzero: int
    layers: Tuple[LayerCount, ...]

    @property
    def keep(self) -> float:
        """Fraction of the prunable weights that are not zero."""
        return self.nonzero / self.weights


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """How the artifact stores and runs one layer.

    Attributes:
        form: `csr` or `dense`; in the sparse engine the kernel: `sparse`, `columns`, `taps`,
            `depthwise` or `dense`.
        nonzero: of `weights`.
        csr_ns: least time of the layer as CSR on the exporting machine, one image, one thread; None where the
            form was not chosen by timing.
        dense_ns: the same as a dense layer.
        macs: multiply-adds of one image with the weights that are not zero; None where nobody counted.
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
    """What the zeros are worth in bytes.

    Attributes:
        artifact: bytes of the artifact, its companions included.
        compressed: bytes of the same packed by zlib, level 6, one file after the other.
        dense: bytes of the prunable weights of the checkpoint as dense fp32.
        weights: bytes of the companion that holds the weights; None where they stand in the artifact's own file.
    """

    artifact: int
    compressed: int
    dense: int
    weights: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Compaction:
    """What was taken out of the network before the export, its outputs staying the same.

    Attributes:
        channels: how many that did nothing.
        parameters: of the checkpoint.
        parameters_left: of the network that was exported.
        macs: multiply-accumulates of the checkpoint for one image, zeros included.
        macs_left: of the network that was exported.
        bytes: of the checkpoint's parameters as fp32.
        bytes_left: of those that were exported.
    """

    channels: int
    parameters: int
    parameters_left: int
    macs: int
    macs_left: int
    bytes: int
    bytes_left: int


@dataclasses.dataclass(frozen=True)
class ExportParity:
    """How far the artifact's final bytes were from the checkpoint on the golden images when it was exported.

    Attributes:
        max_logit_error: relative to the largest absolute logit.
        argmax_agreement: fraction of the images, clean and attacked, with the same class.
        tolerance: largest error that `verify` takes for the same network.
        checked_with: backend and device that computed it.
    """

    max_logit_error: float
    argmax_agreement: float
    tolerance: float
    checked_with: str


@dataclasses.dataclass(frozen=True)
class Source:
    """The run that the artifact comes from."""

    run: str
    checkpoint_sha256: str
    arch: str
    dataset: str
    dataset_fingerprint: str
    versions: Dict[str, str]


@dataclasses.dataclass(frozen=True)
class AttackSpec:
    """An ℓ∞ attack: `eps` in pixel units on [0, 1], its steps, the seed of its random start."""

    name: str
    eps: float
    steps: int
    step_size: float
    seed: int


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
    """Everything a stranger needs to use and to judge the artifact.

    Attributes:
        layers: how each layer is stored, where the exporter had a choice.
        notes: what a reader should know of this artifact, one sentence each.
        compaction: what was taken out of the network first; None where nothing was.
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

    def to_json(self) -> Dict[str, Any]:
        """The manifest as plain values, ready for a JSON writer."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Any, where: str = "manifest.json") -> Manifest:
        """Check and build a manifest from parsed JSON.

        Raises:
            BundleError: another schema version, or a field that is missing, unknown or ill-typed.
        """
        version = value.get("schema_version") if isinstance(value, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{where}: schema_version is {SHOWN.repr(version)}, this release reads {SCHEMA_VERSION}; "
                "export the bundle again, or install the release that wrote it"
            )
        manifest = decode(Manifest, value, where=where, error=BundleError)
        _check_values(manifest, where)
        return manifest


def _check_values(manifest: Manifest, where: str) -> None:
    shape, outputs = manifest.input.shape, manifest.output.shape
    if len(shape) != 4 or None in shape[1:] or any(size is not None and size < 1 for size in shape):
        raise BundleError(f"{where}: input.shape must be [N or null, C, H, W], it is {list(shape)}")
    if math.prod(size or 1 for size in shape) > MAX_PIXELS:
        raise BundleError(f"{where}: input.shape {list(shape)} is more than {MAX_PIXELS} numbers in one batch")
    if len(outputs) != 2 or outputs[1] != len(manifest.classes) or not manifest.classes:
        raise BundleError(f"{where}: output.shape is {list(outputs)}, but there are {len(manifest.classes)} classes")
    if manifest.input.dtype != "float32" or manifest.output.dtype != "float32":
        raise BundleError(f"{where}: input and output must be float32")
    if len(manifest.input_range) != 2 or not manifest.input_range[0] < manifest.input_range[1]:
        raise BundleError(f"{where}: input_range must be [low, high], it is {list(manifest.input_range)}")
    for name in (manifest.target, *manifest.classes, *manifest.notes):
        if _CONTROL.search(name):
            raise BundleError(f"{where}: the name {SHOWN.repr(name)} holds a control character")
    _check_expected(manifest.expected, where)
    _check_artifact(manifest, where)
    layers = manifest.sparsity.layers
    if sum(layer.weights for layer in layers) != manifest.sparsity.weights or manifest.sparsity.weights < 1:
        raise BundleError(f"{where}: sparsity.weights is not the sum of its layers")
    if sum(layer.nonzero for layer in layers) != manifest.sparsity.nonzero:
        raise BundleError(f"{where}: sparsity.nonzero is not the sum of its layers")
    if any(not 0 <= layer.nonzero <= layer.weights for layer in layers):
        raise BundleError(f"{where}: a layer of sparsity.layers counts more non-zeros than weights")


def _check_artifact(manifest: Manifest, where: str) -> None:
    artifact = manifest.artifact
    entry = manifest.files.get(artifact.file)
    if entry is None or (entry.sha256, entry.bytes) != (artifact.sha256, artifact.bytes):
        raise BundleError(f"{where}: artifact.file {SHOWN.repr(artifact.file)} does not agree with files")
    if artifact.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise BundleError(f"{where}: artifact.precision {SHOWN.repr(artifact.precision)} is none of {known}")
    for item in artifact.companions:
        entry = manifest.files.get(item.file)
        if entry is None or (entry.sha256, entry.bytes) != (item.sha256, item.bytes):
            raise BundleError(f"{where}: artifact.companions: {SHOWN.repr(item.file)} does not agree with files")
    names = [item.file for item in artifact.companions]
    if names != sorted(set(names)) or artifact.file in names:
        raise BundleError(f"{where}: artifact.companions must be sorted by name, each once, without artifact.file")


def _check_expected(expected: Expected, where: str) -> None:
    accuracies, attack = (expected.clean_accuracy, expected.robust_accuracy), expected.attack
    if expected.images < 1 or not all(0 <= accuracy <= 1 for accuracy in accuracies):
        raise BundleError(f"{where}: expected has accuracies outside [0, 1], or none: it counts no images")
    if not (0 <= attack.eps <= 1 and 0 <= attack.step_size <= 255):
        raise BundleError(f"{where}: expected.attack has eps {attack.eps:g} and step_size {attack.step_size:g}")
    if attack.steps < 0 or attack.seed < 0:
        raise BundleError(f"{where}: expected.attack has a negative number of steps or a negative seed")
