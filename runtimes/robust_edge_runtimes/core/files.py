"""Files that are whole or absent: temporary name, rename, hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator, Union

from robust_edge_runtimes.core.errors import InputError


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: Path, data: Union[bytes, str]) -> None:
    """Write `data` so that `path` holds either the old content or all of the new one.

    Raises:
        OSError: the disk is full, the folder is missing or not writable; `path` is as before.
    """
    blob = data.encode() if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill that appears as `path` only when the block ends without an error.

    Args:
        path: where the folder shall stand.
        overwrite: replace what stands there (the old folder stays until the new one is complete).

    Raises:
        InputError: `path` exists and `overwrite` is off, or `path` is a file.
    """
    refuse_existing(path, overwrite=overwrite)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".tmp"))
    try:
        fresh.chmod(0o777 & ~_umask())
        yield fresh
        if path.exists():
            _swap(fresh, path)
        else:
            fresh.replace(path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise InputError where `path` cannot be made, or writing it would lose something the user did not give up."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, a folder is to be written there; choose another -o")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path} exists; choose another -o, or pass --overwrite to replace it")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise InputError(f"{path} would lie in {nearest}, which is a file; choose another -o")
    if not os.access(str(nearest), os.W_OK | os.X_OK):
        raise InputError(f"{path} would lie in {nearest}, which cannot be written to; choose another -o")


def _swap(fresh: Path, path: Path) -> None:
    """Rename `fresh` to `path` and drop what stood there, or put that back."""
    aside = Path(tempfile.mkdtemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".old"))
    old = aside / path.name
    try:
        path.replace(old)
        fresh.replace(path)
    except BaseException:
        if old.exists():
            old.replace(path)
        aside.rmdir()
        raise
    shutil.rmtree(aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
