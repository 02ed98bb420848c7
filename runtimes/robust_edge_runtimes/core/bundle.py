"""Bundles: check everything in one before it is used, and write a new one.

A bundle is a folder with `manifest.json`, the artifact, `golden.npz` and the files that are needed on the
device. `SHA256SUMS` lists the hash of every file, so that any change is detected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Collection, Iterator, Union

from robust_edge_runtimes.core.decode import read_json, short_repr
from robust_edge_runtimes.core.errors import BundleError, InputError, shown_as
from robust_edge_runtimes.core.files import sha256_of, temporary_folder, write_atomic, write_json
from robust_edge_runtimes.core.folders import SCRATCH
from robust_edge_runtimes.core.golden import GOLDEN, Golden, check_expected, read_golden
from robust_edge_runtimes.core.links import without_links
from robust_edge_runtimes.core.manifest import Companion, FileEntry, Manifest

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
MAX_NAME_LENGTH = 200
MAX_SUMS_BYTES = 1 << 20
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle whose files have the sizes and hashes that its manifest states.

    Attributes:
        path: the folder itself; if a symbolic link to it was given, its target.
        manifest: the content of `manifest.json`.
    """

    path: Path
    manifest: Manifest

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
    root = without_links(Path(path))
    manifest = _listed(root)
    for name, entry in manifest.files.items():
        if sha256_of(root / name) != entry.sha256:
            raise BundleError(f"{root / name} is not the file that was exported (SHA-256 differs); copy it again")
    _check_sums(root, manifest)
    return Bundle(root, manifest)


@contextlib.contextmanager
def private_bundle(path: Union[str, Path]) -> Iterator[Bundle]:
    """Open a copy of a bundle in a temporary folder that only this user can enter; it is removed at the end.

    A file that others can write may hold other bytes when it is hashed than when it is executed. That leaves no trace
    where they have mapped it into memory. Files that the manifest does not list are empty in the copy, since only
    their names matter. Errors name the given path.

    Raises:
        BundleError: as `open_bundle`.
        InputError: the temporary folder lies in the bundle, or cannot hold the copy.
    """
    root, parent = Path(path), Path(tempfile.gettempdir())
    manifest = _listed(root)
    if any(folder.samefile(root) for folder in (parent.resolve(), *parent.resolve().parents)):
        raise InputError(f"temporary files would lie in the bundle {root} itself; set TMPDIR to a folder outside of it")
    size = sum(entry.bytes for entry in manifest.files.values())
    size += sum((root / name).stat().st_size for name in (MANIFEST, SUMS))
    free = shutil.disk_usage(str(parent)).free
    if size > free:
        raise InputError(
            f"{root} is copied to {parent} and takes {size} bytes there, of which {free} are free; set TMPDIR to a "
            "folder on a larger disk"
        )
    with temporary_folder(parent, SCRATCH) as scratch, shown_as(scratch / "bundle", root):
        try:
            _copy(root, scratch / "bundle", {MANIFEST, SUMS, *manifest.files})
        except OSError as cause:
            raise InputError(
                f"{root} cannot be copied to {parent} ({cause}): make it readable, or set TMPDIR to another folder"
            ) from cause
        yield open_bundle(scratch / "bundle")


def refuse_unlisted(bundle: Bundle) -> None:
    """Raise BundleError where a bundle holds a file that its manifest does not list, which a source could include."""
    for folder, folders, files in os.walk(str(bundle.path)):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted((*files, *links)):
            inside = Path(folder, name).relative_to(bundle.path).as_posix()
            if inside not in (MANIFEST, SUMS, *bundle.manifest.files):
                raise BundleError(
                    f"{bundle.path} holds {short_repr(inside)}, which {MANIFEST} does not list and the source of the "
                    "artifact could include; move it out of the bundle"
                )


def _copy(root: Path, copy: Path, listed: Collection[str]) -> None:
    """Copy a folder: all folders, the listed files, and the names of all others."""
    copy.mkdir()
    for folder, folders, files in os.walk(str(root)):
        inside = Path(folder).relative_to(root)
        for name in (*folders, *files):
            source, target = Path(folder, name), copy / inside / name
            if source.is_symlink():
                target.symlink_to("nowhere")
            elif name in folders:
                target.mkdir()
            elif (inside / name).as_posix() in listed:
                shutil.copyfile(str(source), str(target), follow_symlinks=False)
            else:
                target.touch()


def _listed(root: Path) -> Manifest:
    """The manifest, after a check that all files that it lists are there in the right size; nothing is hashed."""
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
        _check_file(root, name, entry.bytes)
    if GOLDEN not in manifest.files:
        raise BundleError(f"{root / MANIFEST} does not list {GOLDEN}; export the bundle again")
    sums = root / SUMS
    if sums.is_symlink() or not sums.is_file():
        raise BundleError(f"{sums} is missing; copy the whole bundle, or export it again")
    if sums.stat().st_size > MAX_SUMS_BYTES:
        raise _other_sums(sums)
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


def _check_file(root: Path, name: str, size: int) -> None:
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


def _check_sums(root: Path, manifest: Manifest) -> None:
    if (root / SUMS).read_bytes() != sums_text(root, manifest).encode():
        raise _other_sums(root / SUMS)


def _other_sums(path: Path) -> BundleError:
    return BundleError(f"{path} does not agree with {MANIFEST} and the files; copy the bundle again")
