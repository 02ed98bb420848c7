"""Folders that are written completely or not at all: filled under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator, List, Optional

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import umask
from robust_edge_runtimes.core.links import resolved
from robust_edge_runtimes.core.locks import locked

SCRATCH = "robust-edge"
"""Name of all temporary folders of commands: a command that needs one removes those that killed commands left."""


@contextlib.contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `path` when the block ends without an error.

    Args:
        path: the folder to create.
        overwrite: replace an existing folder, which stays until the new one is complete.

    Raises:
        InputError: as `check_new_directory`, before the block and after it, or another process writes `path`.
    """
    check_new_directory(path, overwrite=overwrite)
    with locked(path) as held:
        path = resolved(path)
        if held:
            _recover(path)
            check_new_directory(path, overwrite=overwrite)
        fresh = Path(tempfile.mkdtemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".tmp"))
        try:
            fresh.chmod(0o777 & ~umask())
            yield fresh
            check_new_directory(path, overwrite=overwrite)  # what others have put there meanwhile
            if overwrite and path.exists():
                _swap(fresh, path)
            else:
                fresh.replace(path)  # an empty folder, or none
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def _recover(path: Path) -> None:
    """Remove what killed writers of `path` left, and restore its old content if they had moved it aside.

    Under the lock of `path` nobody else writes it, so that all temporary folders of its name are leftovers.
    """
    for aside in _left(path, "old"):
        if (aside / path.name).is_dir() and not path.exists():
            (aside / path.name).replace(path)
        shutil.rmtree(aside)
    for folder in _left(path, "tmp"):
        shutil.rmtree(folder)


def _left(path: Path, suffix: str) -> List[Path]:
    """The temporary folders of `path`; files and links with such names are none."""
    found = path.parent.glob(f".{glob.escape(path.name)}.*.{suffix}")
    return [folder for folder in found if folder.is_dir() and not folder.is_symlink()]


def owner_of(path: Path) -> Optional[Path]:
    """The bundle or run that contains `path`, which need not exist; files in RUN/evaluations belong to the user."""
    real = resolved(path)
    for folder in real.parents:
        if (folder / "SHA256SUMS").exists() and (folder / "manifest.json").exists():
            return folder
        if (folder / "config.yaml").exists() and (folder / "environment.json").exists():
            return None if real.parent == folder / "evaluations" else folder
    return None


def check_new_directory(path: Path, *, overwrite: bool) -> None:
    """Raise InputError where the folder `path` cannot be created, or exists with content and `overwrite` is off."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, but a folder is to be written there; choose another path")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path} exists; choose another path, or pass `overwrite` to replace it")
    owner = owner_of(path)
    if owner is not None:
        raise InputError(f"{path} would be inside {owner}, which is a bundle or a run; choose another path")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise InputError(f"{path} would be inside {nearest}, which is a file; choose another path")
    if not os.access(str(nearest), os.W_OK | os.X_OK):
        raise InputError(f"{path} would be inside {nearest}, which is not writable; choose another path")


def _swap(fresh: Path, path: Path) -> None:
    """Replace the folder `path` by `fresh`; where that fails, restore the old one."""
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
