"""Write a bundle as one tar file; equal bundles give identical bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_atomic


def archive_path(bundle: Path, *, overwrite: bool) -> Path:
    """The path of the archive: the bundle's path with the suffix `.tar`.

    Raises:
        InputError: it exists and `overwrite` is off, or it is not a file.
    """
    path = bundle.parent / f"{bundle.name}.tar"
    if path.exists() and not (overwrite and path.is_file()):
        raise InputError(f"{path} exists; choose another path, or pass `overwrite` to replace it")
    return path


def write_archive(bundle: Path, path: Path) -> None:
    """Write all files of the bundle in a folder of its name, sorted, without owners and times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted(file for file in bundle.rglob("*") if file.is_file()):
            entry = tarfile.TarInfo(f"{bundle.name}/{file.relative_to(bundle).as_posix()}")
            entry.size = file.stat().st_size
            entry.mode = 0o755 if file.suffix in (".py", ".sh") else 0o644
            with file.open("rb") as content:
                archive.addfile(entry, content)
    write_atomic(path, buffer.getvalue())
