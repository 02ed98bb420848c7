"""Folders that are whole or absent: filled under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import umask


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
        fresh.chmod(0o777 & ~umask())
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
