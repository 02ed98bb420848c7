"""The golden images of a bundle: `golden.npz`, read without pickle.

It holds images with the checkpoint's logits, and the logits that the artifact itself gave on the exporting machine. A
device compares its own logits with both: with the first to show that it runs the checkpoint's network, and with the
second, which are closer, to show that it computes what was tested at export.
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from robust_edge_runtimes.core.decode import short_repr
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.manifest import AttackSpec, Expected, Manifest

GOLDEN = "golden.npz"
MAX_GOLDEN_BYTES = 1 << 30
HEADERS = 1 << 12  # bytes of all arrays that are no values
LOCAL, CENTRAL, END = 30, 46, 22
"""Bytes of the records of a zip file: before each member, in the directory, and at the end, without names."""
HEAD = 10  # bytes before the header of an array
PADDING = 128  # spaces that releases of numpy write behind an array's header, at most
MAX_TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "int8": 0.3}
"""Largest tolerance that an export writes, by precision; a larger one would not tell the checkpoint from other
networks."""


@dataclasses.dataclass(frozen=True)
class Golden:
    """Images with their labels, the checkpoint's logits and the artifact's.

    The last three are missing in bundles of release 0.1.

    Attributes:
        clean: (N, C, H, W) float32 in [0, 1].
        attacked: (N, C, H, W) float32 in [0, 1], adversarial examples of the checkpoint.
        labels: (N,) int64.
        clean_logits: (N, K) float32, the checkpoint's logits of `clean`.
        attacked_logits: (N, K) float32, the checkpoint's logits of `attacked`.
        tolerance: largest logit error that an artifact may have, relative to the largest absolute logit.
        artifact_clean_logits: (N, K) float32, the artifact's logits of `clean` on the exporting machine.
        artifact_attacked_logits: (N, K) float32, the same of `attacked`.
        artifact_tolerance: largest difference from these that another machine's rounding explains; at most `tolerance`.
    """

    clean: np.ndarray
    attacked: np.ndarray
    labels: np.ndarray
    clean_logits: np.ndarray
    attacked_logits: np.ndarray
    tolerance: float
    artifact_clean_logits: Optional[np.ndarray] = None
    artifact_attacked_logits: Optional[np.ndarray] = None
    artifact_tolerance: Optional[float] = None

    @property
    def artifact_logits(self) -> Optional[np.ndarray]:
        """(2N, K): the artifact's logits on the clean images, then on the attacked ones; None if they are missing."""
        if self.artifact_clean_logits is None or self.artifact_attacked_logits is None:
            return None
        return np.concatenate([self.artifact_clean_logits, self.artifact_attacked_logits])


def expected_of(golden: Golden, attack: AttackSpec) -> Expected:
    """The clean and robust accuracies that follow from the stored logits and labels."""
    clean = is_right(golden.clean_logits, golden.labels)
    robust = clean & is_right(golden.attacked_logits, golden.labels)
    return Expected(len(golden.labels), float(clean.mean()), float(robust.mean()), attack)


def most_golden_images(shape: Tuple[int, ...], classes: int) -> int:
    """How many images of the shape (C, H, W) golden.npz may hold with their logits."""
    each = 4 * (2 * math.prod(shape) + 4 * classes) + 8
    return (MAX_GOLDEN_BYTES - HEADERS) // each


def write_golden(path: Path, golden: Golden) -> None:
    """Write the arrays of `golden` as `read_golden` expects them; equal arrays give identical bytes."""
    values = {field.name: getattr(golden, field.name) for field in dataclasses.fields(golden)}
    arrays: Dict[str, Any] = {name: np.asarray(value) for name, value in values.items() if value is not None}
    np.savez_compressed(str(path), **arrays)


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Read golden.npz without unpickling; sizes, shapes, types and ranges are checked.

    Raises:
        BundleError: the file does not hold the arrays of a bundle that has this manifest.
    """
    fields = dataclasses.fields(Golden)
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    arrays = _read_arrays(path, required, [field.name for field in fields])
    images = (len(arrays["labels"]) if arrays["labels"].ndim == 1 else -1, *manifest.input.shape[1:])
    logits = (images[0], len(manifest.classes))
    _check_array(path, arrays, "clean", images, np.float32, manifest.input_range)
    _check_array(path, arrays, "attacked", images, np.float32, manifest.input_range)
    _check_array(path, arrays, "labels", (images[0],), np.int64, (0, len(manifest.classes) - 1))
    _check_array(path, arrays, "clean_logits", logits, np.float32)
    _check_array(path, arrays, "attacked_logits", logits, np.float32)
    _check_array(path, arrays, "tolerance", (), np.float64, (0.0, MAX_TOLERANCE[manifest.artifact.precision]))
    if len(arrays) > len(required):
        _check_array(path, arrays, "artifact_clean_logits", logits, np.float32)
        _check_array(path, arrays, "artifact_attacked_logits", logits, np.float32)
        _check_array(path, arrays, "artifact_tolerance", (), np.float64, (0.0, float(arrays["tolerance"])))
    if len(arrays["labels"]) < 1:
        raise BundleError(f"{path} holds no images; export the bundle again")
    values: Dict[str, Any] = {name: array if array.ndim else float(array) for name, array in arrays.items()}
    return Golden(**values)


def check_expected(path: Path, golden: Golden, stated: Expected) -> None:
    """Raise BundleError where the manifest states other accuracies than follow from the stored logits."""
    found = expected_of(golden, stated.attack)
    computed, written = ((item.clean_accuracy, item.robust_accuracy) for item in (found, stated))
    if found.images != stated.images or not np.allclose(computed, written, rtol=0, atol=1e-6):
        raise BundleError(
            f"{path}: on {found.images} images the stored logits have a clean accuracy of {found.clean_accuracy:.4f} "
            f"and a robust one of {found.robust_accuracy:.4f}; manifest.json states {stated.clean_accuracy:.4f} and "
            f"{stated.robust_accuracy:.4f} on {stated.images} images; export the bundle again"
        )


def _read_arrays(path: Path, required: List[str], known: List[str]) -> Dict[str, np.ndarray]:
    """Read the required arrays, or all that this release knows."""
    try:
        with zipfile.ZipFile(str(path)) as archive:
            names = _members(path, archive, required, known)
            return {name: _read_member(archive.read(f"{name}.npy"), f"{name}.npy") for name in names}
    except BundleError:
        raise
    except Exception as cause:  # zipfile, zlib, tokenize and numpy's header parser raise many exception classes
        raise BundleError(f"{path} cannot be read as plain arrays: {cause or type(cause).__name__}") from cause


def _members(path: Path, archive: zipfile.ZipFile, required: List[str], known: List[str]) -> List[str]:
    members = archive.infolist()
    found = sorted(member.filename for member in members)
    names = next((names for names in (required, known) if sorted(f"{name}.npy" for name in names) == found), None)
    if names is None:
        raise BundleError(f"{path} must hold {', '.join(known)}; it holds {short_repr(found)}")
    if sum(member.file_size for member in members) > MAX_GOLDEN_BYTES:
        raise BundleError(f"{path} unpacks to more than {MAX_GOLDEN_BYTES >> 20} MiB, the limit; export fewer images")
    if _has_gaps(path, archive):
        raise BundleError(f"{path} holds bytes that belong to no array; export the bundle again")
    return names


def _has_gaps(path: Path, archive: zipfile.ZipFile) -> bool:
    """Whether a zip file holds more than its members and its directory: around or within them, or as texts."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    starts = [member.header_offset for member in members] + [archive.start_dir]
    directory = sum(CENTRAL + len(member.filename) for member in members)
    size = path.stat().st_size
    if starts[0] != 0 or starts[-1] + directory + END != size or size > 2 * MAX_GOLDEN_BYTES:
        return True
    blob = path.read_bytes()
    return not all(_is_whole(member, blob[start:end]) for member, start, end in zip(members, starts, starts[1:]))


def _is_whole(member: zipfile.ZipInfo, stored: bytes) -> bool:
    """Whether the bytes up to the next member are a header, the only extra field that numpy writes, and one stream."""
    extra = struct.pack("<HHQQ", 1, 16, member.file_size, member.compress_size)  # ZIP64, which old releases leave out
    head = LOCAL + len(member.filename)
    packed = stored[len(stored) - member.compress_size :] if member.compress_size else b""
    if stored[head : len(stored) - len(packed)] not in (b"", extra) or head + len(packed) > len(stored):
        return False
    return is_all_of(member, packed)


def is_all_of(member: zipfile.ZipInfo, packed: bytes) -> bool:
    """Whether bytes are the data of a zip file's member, as they are or deflated, and nothing else."""
    if member.compress_type == zipfile.ZIP_STORED:
        return len(packed) == member.file_size
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    size = len(stream.decompress(packed, member.file_size + 1))
    deflated = member.compress_type == zipfile.ZIP_DEFLATED and size == member.file_size
    return deflated and stream.eof and not stream.unused_data


def _read_member(data: bytes, name: str) -> np.ndarray:
    """Read an array from the bytes of a .npy file that is written as numpy writes it."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} has a header of a version that no export writes")
    # only the header: reading the array would allocate the size that the header states
    shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if min((0, *shape)) < 0 or file.tell() + math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name} has another size than its header states")
    described = (np.lib.format.dtype_to_descr(dtype), in_fortran_order, shape)
    expected = "{{'descr': {!r}, 'fortran_order': {!r}, 'shape': {!r}, }}".format(*described).encode()
    written = data[HEAD : file.tell()]
    if written.rstrip(b" \n") != expected or written.count(b"\n") > 1 or len(written) - len(expected) > PADDING:
        raise ValueError(f"{name} has a header that numpy does not write")
    file.seek(0)
    array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_array(
    path: Path,
    arrays: Dict[str, np.ndarray],
    name: str,
    shape: Tuple[Optional[int], ...],
    dtype: type,
    bounds: Optional[Tuple[float, ...]] = None,
) -> None:
    array = arrays[name]
    if array.dtype != dtype or array.shape != shape:
        found, expected = f"{array.dtype}{list(array.shape)}", f"{np.dtype(dtype)}{list(shape)}"
        raise BundleError(f"{path}: {name} is {found}, expected {expected}; export the bundle again")
    if not np.isfinite(array).all():
        raise BundleError(f"{path}: {name} holds NaN or infinity; export the bundle again")
    if bounds is None or not array.size:
        return
    low, high = float(array.min()), float(array.max())  # a bound may be beyond the array's own type
    if not (low >= bounds[0] and high <= bounds[1]):
        raise BundleError(f"{path}: {name} has values outside [{bounds[0]}, {bounds[1]}]; export the bundle again")
