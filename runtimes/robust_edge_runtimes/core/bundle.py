"""Bundles: open one and trust nothing in it that has not been checked.

A bundle is a folder with `manifest.json`, the artifact, `golden.npz` and the files a person needs on
the device. `SHA256SUMS` lists every file, so one changed byte anywhere is found.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from robust_edge_runtimes.core.decode import SHOWN, read_json
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.files import sha256_of, write_atomic, write_json
from robust_edge_runtimes.core.manifest import AttackSpec, Companion, Expected, FileEntry, Manifest

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SUMS = "SHA256SUMS"
MAX_GOLDEN_BYTES = 1 << 30
MAX_NAME = 200
MAX_TOLERANCE = {"fp32": 1e-3, "fp16": 3e-2, "int8": 1.0}
"""Precision to the widest tolerance that an export writes; one that is wider takes any network for the checkpoint."""
_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclasses.dataclass(frozen=True)
class Golden:
    """Images with known answers.

    Attributes:
        clean: (N, C, H, W) float32 in [0, 1].
        attacked: (N, C, H, W) float32 in [0, 1], made against the checkpoint.
        labels: (N,) int64.
        clean_logits: (N, K) float32, the checkpoint's on `clean`.
        attacked_logits: (N, K) float32, the checkpoint's on `attacked`.
        tolerance: largest logit error, relative to the largest absolute logit, of a faithful artifact.
    """

    clean: np.ndarray
    attacked: np.ndarray
    labels: np.ndarray
    clean_logits: np.ndarray
    attacked_logits: np.ndarray
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An opened bundle: every listed file has the size and the hash that the manifest promises."""

    path: Path
    manifest: Manifest

    @property
    def artifact_path(self) -> Path:
        """The model file."""
        return self.path / self.manifest.artifact.file

    def golden(self) -> Golden:
        """The stored images, labels and logits, checked against the manifest's shapes and figures."""
        golden = read_golden(self.path / GOLDEN, self.manifest)
        _check_promise(self.path / GOLDEN, golden, self.manifest.expected)
        return golden


def expected_of(golden: Golden, attack: AttackSpec) -> Expected:
    """The accuracies that stored answers have: on clean images, and on their attacked ones too."""
    clean = golden.clean_logits.argmax(1) == golden.labels
    robust = clean & (golden.attacked_logits.argmax(1) == golden.labels)
    return Expected(len(golden.labels), float(clean.mean()), float(robust.mean()), attack)


def open_bundle(path: Union[str, Path]) -> Bundle:
    """Check a bundle from the outside in: sums, manifest, sizes, hashes.

    Raises:
        BundleError: not a bundle, a file missing, changed, linked or outside the folder, or a manifest
            that contradicts itself.
    """
    root = Path(path)
    if root.suffix == ".tar" and root.is_file():
        raise BundleError(f"{root} is an archive: tar -xf {root}, and name the folder that it holds")
    if not root.is_dir():
        raise BundleError(f"{root} is not a folder; a bundle is what `robust-edge export` writes")
    if (root / MANIFEST).is_symlink():
        raise BundleError(f"{root / MANIFEST} is a link; a bundle holds plain files only")
    if not (root / MANIFEST).is_file():
        raise BundleError(f"{root} has no {MANIFEST}; a bundle is what `robust-edge export` writes")
    manifest = Manifest.from_json(read_json(root / MANIFEST, BundleError), where=str(root / MANIFEST))
    for name, entry in manifest.files.items():
        _check_file(root, name, entry.sha256, entry.bytes)
    if GOLDEN not in manifest.files:
        raise BundleError(f"{root / MANIFEST} does not list {GOLDEN}; export the bundle again")
    _check_sums(root, manifest)
    return Bundle(root, manifest)


def sums_text(root: Path, manifest: Manifest) -> str:
    """The content of SHA256SUMS, in the form that `sha256sum -c` reads."""
    sums = {name: entry.sha256 for name, entry in manifest.files.items()}
    sums[MANIFEST] = sha256_of(root / MANIFEST)
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def write_golden(path: Path, golden: Golden) -> None:
    """Write the arrays of `golden` so that `read_golden` accepts them; same arrays, same bytes."""
    arrays: Dict[str, Any] = {
        field.name: np.asarray(getattr(golden, field.name)) for field in dataclasses.fields(golden)
    }
    np.savez_compressed(str(path), **arrays)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Make a folder a bundle: list and hash every file in it, then write manifest and sums.

    Args:
        folder: holds the artifact, the golden images and whatever else ships.
        manifest: its `files`, and hash and size of the artifact and its companions, are replaced by what lies in
            the folder.

    Returns:
        The manifest as written.
    """
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    files = {
        name: FileEntry(sha256_of(folder / name), (folder / name).stat().st_size)
        for name in names
        if name not in (MANIFEST, SUMS)
    }
    entry = files[manifest.artifact.file]
    companions = tuple(
        Companion(item.file, files[item.file].sha256, files[item.file].bytes) for item in manifest.artifact.companions
    )
    artifact = dataclasses.replace(manifest.artifact, sha256=entry.sha256, bytes=entry.bytes, companions=companions)
    written = dataclasses.replace(manifest, artifact=artifact, files=files)
    write_json(folder / MANIFEST, written.to_json())
    write_atomic(folder / SUMS, sums_text(folder, written))
    return written


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Read golden.npz without unpickling, bounded in size, shapes and ranges checked.

    Raises:
        BundleError: not the arrays that a bundle holds.
    """
    names = [field.name for field in dataclasses.fields(Golden)]
    arrays = _read_arrays(path, names)
    images = (len(arrays["labels"]) if arrays["labels"].ndim == 1 else -1, *manifest.input.shape[1:])
    logits = (images[0], len(manifest.classes))
    _check_array(path, arrays, "clean", images, np.float32, manifest.input_range)
    _check_array(path, arrays, "attacked", images, np.float32, manifest.input_range)
    _check_array(path, arrays, "labels", (images[0],), np.int64, (0, len(manifest.classes) - 1))
    _check_array(path, arrays, "clean_logits", logits, np.float32)
    _check_array(path, arrays, "attacked_logits", logits, np.float32)
    _check_array(path, arrays, "tolerance", (), np.float64, (0.0, MAX_TOLERANCE[manifest.artifact.precision]))
    if len(arrays["labels"]) < 1:
        raise BundleError(f"{path} holds no images; export the bundle again")
    tolerance = float(arrays.pop("tolerance"))
    return Golden(tolerance=tolerance, **arrays)


def _check_promise(path: Path, golden: Golden, promised: Expected) -> None:
    """The accuracies that the manifest shows people are those that the stored answers have."""
    found = expected_of(golden, promised.attack)
    ours, theirs = ((item.images, item.clean_accuracy, item.robust_accuracy) for item in (found, promised))
    if not np.allclose(ours, theirs, rtol=0, atol=1e-6):
        raise BundleError(
            f"{path} holds answers right on {found.clean_accuracy:.4f} of {found.images} images, attacked "
            f"{found.robust_accuracy:.4f}; {MANIFEST} promises {promised.clean_accuracy:.4f} of {promised.images}, "
            f"attacked {promised.robust_accuracy:.4f}; export the bundle again"
        )


def _check_file(root: Path, name: str, sha256: str, size: int) -> None:
    if not _MEMBER.fullmatch(name):
        raise BundleError(f"{root / MANIFEST} names {SHOWN.repr(name)}, which is not a plain path inside the bundle")
    path = root / name
    if len(name) > MAX_NAME:
        raise BundleError(f"{root / MANIFEST} names a file with {len(name)} letters; at most {MAX_NAME} are allowed")
    if any(part.is_symlink() for part in [path, *path.parents][: name.count("/") + 1]):
        raise BundleError(f"{path} is a link; a bundle holds plain files only")
    if not path.is_file():
        raise BundleError(f"{path} is missing; copy the whole bundle, or export it again")
    if path.stat().st_size != size:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, the manifest says {size}; copy it again")
    if sha256_of(path) != sha256:
        raise BundleError(f"{path} is not the file that was exported (SHA-256 differs); copy it again")


def _check_sums(root: Path, manifest: Manifest) -> None:
    path = root / SUMS
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing; copy the whole bundle, or export it again")
    if path.stat().st_size > 1 << 20 or path.read_bytes() != sums_text(root, manifest).encode():
        raise BundleError(f"{path} does not agree with {MANIFEST} and the files; copy the bundle again")


def _read_arrays(path: Path, names: List[str]) -> Dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(str(path)) as archive:
            _check_members(path, archive, names)
            return {name: _read_member(archive, f"{name}.npy") for name in names}
    except BundleError:
        raise
    except Exception as cause:  # zipfile, zlib, tokenize and numpy's header parser raise a dozen classes
        raise BundleError(f"{path} cannot be read as plain arrays: {cause or type(cause).__name__}") from cause


def _check_members(path: Path, archive: zipfile.ZipFile, names: List[str]) -> None:
    members = archive.infolist()
    if sorted(member.filename for member in members) != sorted(f"{name}.npy" for name in names):
        found = SHOWN.repr(sorted(member.filename for member in members))
        raise BundleError(f"{path} must hold {', '.join(names)}; it holds {found}")
    if sum(member.file_size for member in members) > MAX_GOLDEN_BYTES:
        raise BundleError(f"{path} unpacks to more than {MAX_GOLDEN_BYTES >> 20} MiB; refused")


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    size = archive.getinfo(name).file_size
    with archive.open(name) as member:  # the header alone, since reading the array allocates what it promises
        version = np.lib.format.read_magic(member)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = header(member)
        if min((0, *shape)) < 0 or member.tell() + math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{name} has another size than its header promises")
    with archive.open(name) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
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
        raise BundleError(
            f"{path}: {name} is {array.dtype}{list(array.shape)}, expected {np.dtype(dtype)}{list(shape)}"
        )
    if not np.isfinite(array).all():
        raise BundleError(f"{path}: {name} holds a value that is not finite")
    if bounds is None or not array.size:
        return
    low, high = float(array.min()), float(array.max())  # a bound may be beyond the array's own type
    if not (low >= bounds[0] and high <= bounds[1]):
        raise BundleError(f"{path}: {name} leaves its range [{bounds[0]}, {bounds[1]}]")
