"""Bundles: check everything in one before it is used, and write a new one.

A bundle is a folder with `manifest.json`, the artifact, `golden.npz` and the files that are needed on the
device. `SHA256SUMS` lists the hash of every file, so that any change is detected.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Iterable, Tuple, Union

from robust_edge_runtimes.core.decode import read_json, short_repr
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.files import sha256_of, write_atomic, write_json
from robust_edge_runtimes.core.golden import GOLDEN, Golden, check_expected, read_golden
from robust_edge_runtimes.core.manifest import Companion, FileEntry, Manifest

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
MAX_NAME_LENGTH = 200
State = Tuple[Tuple[int, int, int, int], ...]
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle whose files have the sizes and hashes that its manifest states.

    Attributes:
        path: the folder itself; if a symbolic link to it was given, its target.
        manifest: the content of `manifest.json`.
        state: what the file system said of the folder and its files when the bundle was opened.
        above: the same of the folders that it lies in.
    """

    path: Path
    manifest: Manifest
    state: State = dataclasses.field(default=(), compare=False, repr=False)
    above: State = dataclasses.field(default=(), compare=False, repr=False)

    @property
    def artifact_path(self) -> Path:
        """The model file."""
        return self.path / self.manifest.artifact.file

    def golden(self) -> Golden:
        """The stored images, labels and logits, checked against the manifest's shapes, ranges and accuracies."""
        golden = read_golden(self.path / GOLDEN, self.manifest)
        check_expected(self.path / GOLDEN, golden, self.manifest.expected)
        return golden


def open_bundle(path: Union[str, Path]) -> Bundle:
    """Check a bundle: the manifest, then the size and hash of every file, then SHA256SUMS.

    Raises:
        BundleError: `path` is not a bundle; a file is missing, changed, a symbolic link or outside the folder; or
            the manifest contradicts itself.
    """
    root = _without_links(Path(path))
    manifest = _checked_manifest(root)
    return Bundle(root, manifest, _state(root, manifest), _state_above(root))


def refuse_changed(bundle: Bundle) -> None:
    """Raise BundleError where an opened bundle is not what it was, or has not been so all the time.

    A verdict would be on neither of two bundles that took turns.
    """
    if _checked_manifest(bundle.path) != bundle.manifest:
        raise BundleError(f"{bundle.path} was replaced by another bundle while it was verified; verify it again")
    pairs = zip(bundle.above, _state_above(bundle.path))
    if _state(bundle.path, bundle.manifest) != bundle.state or any(_was_moved(*pair) for pair in pairs):
        raise BundleError(f"{bundle.path} was written, moved or relinked while it was verified; verify it again")


def _without_links(path: Path) -> Path:
    """The same folder by a path without symbolic links, which could lead elsewhere later."""
    real = Path(os.path.realpath(path))
    return path if real == Path(os.path.abspath(path)) else real  # noqa: PTH100 - resolve() would follow them


def _state(root: Path, manifest: Manifest) -> State:
    """Inode and times of the folder and its files. Who changes a file and restores it cannot restore the last one."""
    return _states(root / name for name in (".", MANIFEST, SUMS, *sorted(manifest.files)))


def _state_above(root: Path) -> State:
    """The same of all folders that `root` lies in, from the next one up."""
    return _states(Path(os.path.abspath(root)).parents)  # noqa: PTH100 - absolute() would keep "..", resolve() follow


def _states(paths: Iterable[Path]) -> State:
    found = (path.stat() for path in paths)
    return tuple((item.st_dev, item.st_ino, item.st_mtime_ns, item.st_ctime_ns) for item in found)


def _was_moved(before: Tuple[int, int, int, int], now: Tuple[int, int, int, int]) -> bool:
    """Whether a folder is another one, or was moved away and back, which changes only the last of its times.

    A file that is written into the folder changes both, and is allowed: other bundles may lie there.
    """
    return before[:2] != now[:2] or (before[2] == now[2] and before[3] != now[3])


def _checked_manifest(root: Path) -> Manifest:
    if root.suffix == ".tar" and root.is_file():
        raise BundleError(f"{root} is an archive: unpack it with tar -xf {root}, then give the folder")
    if not root.is_dir():
        raise BundleError(f"{root} is not a folder; a bundle is what `robust-edge export` writes")
    if (root / MANIFEST).is_symlink():
        raise BundleError(f"{root / MANIFEST} is a symbolic link; a bundle holds regular files only")
    if not (root / MANIFEST).is_file():
        raise BundleError(f"{root} has no {MANIFEST}; a bundle is what `robust-edge export` writes")
    manifest = Manifest.from_json(read_json(root / MANIFEST, BundleError), where=str(root / MANIFEST))
    for name, entry in manifest.files.items():
        _check_file(root, name, entry.sha256, entry.bytes)
    if GOLDEN not in manifest.files:
        raise BundleError(f"{root / MANIFEST} does not list {GOLDEN}; export the bundle again")
    _check_sums(root, manifest)
    return manifest


def sums_text(root: Path, manifest: Manifest) -> str:
    """The content of SHA256SUMS, in the format of `sha256sum`."""
    sums = {name: entry.sha256 for name, entry in manifest.files.items()}
    sums[MANIFEST] = sha256_of(root / MANIFEST)
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Turn a folder into a bundle: list and hash every file in it, then write the manifest and SHA256SUMS.

    Args:
        folder: holds the artifact, the golden images and every other file of the bundle.
        manifest: its `files`, and the hash and size of the artifact and of its companions, are replaced by
            those of the files in the folder.

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


def _check_file(root: Path, name: str, sha256: str, size: int) -> None:
    if not _PLAIN_PATH.fullmatch(name):
        raise BundleError(
            f"{root / MANIFEST} lists {short_repr(name)}, which is not a plain path inside the bundle; export it again"
        )
    path = root / name
    if len(name) > MAX_NAME_LENGTH:
        raise BundleError(
            f"{root / MANIFEST} lists a file whose name has {len(name)} letters; at most {MAX_NAME_LENGTH} are allowed"
        )
    if any(part.is_symlink() for part in [path, *path.parents][: name.count("/") + 1]):
        raise BundleError(f"{path} is a symbolic link; a bundle holds regular files only")
    if not path.is_file():
        raise BundleError(f"{path} is missing; copy the whole bundle, or export it again")
    if path.stat().st_size != size:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, but {MANIFEST} says {size}; copy it again")
    if sha256_of(path) != sha256:
        raise BundleError(f"{path} is not the file that was exported (SHA-256 differs); copy it again")


def _check_sums(root: Path, manifest: Manifest) -> None:
    path = root / SUMS
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing; copy the whole bundle, or export it again")
    if path.stat().st_size > 1 << 20 or path.read_bytes() != sums_text(root, manifest).encode():
        raise BundleError(f"{path} does not agree with {MANIFEST} and the files; copy the bundle again")
