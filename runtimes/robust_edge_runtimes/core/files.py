"""Files that are written completely or not at all (temporary name, then rename), hashes, and the cache folder.

Runs on Python 3.6 with the standard library alone, since the scripts of bundles contain it.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple, Union

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: Path, data: Union[bytes, str]) -> None:
    """Write `data` so that `path` holds either its old content or all of `data`.

    Temporary files that killed processes left of earlier writes to `path` are removed.

    Raises:
        OSError: the disk is full, or the folder is missing or not writable; `path` is unchanged.
    """
    blob = data.encode() if isinstance(data, str) else data
    remove_leftovers(path.parent, path.name)
    handle, name = _locked_temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~umask())
            Path(name).replace(path)  # before the file is closed, which ends its lock
    except BaseException:
        if Path(name).exists():
            Path(name).unlink()
        raise


def _locked_temporary(path: Path) -> Tuple[int, str]:
    """A new temporary file beside `path`; its lock shows other processes that its writer is alive."""
    while True:
        handle, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".tmp")
        if try_lock(handle) is not False and os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process took it for a leftover before it was locked


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove temporary files whose writers are dead; where the file system has no locks, all files stay.

    Args:
        folder: the folder of the files that were to be written.
        name: the file that was to be written; `*` for all files.
    """
    pattern = name if name == "*" else glob.escape(name)
    for path in folder.glob(f".{pattern}.*.tmp"):
        try:
            _remove_if_unlocked(path)
        except OSError:  # gone already, or of another user
            continue


def _remove_if_unlocked(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return
    handle = os.open(str(path), os.O_RDWR)
    try:
        if try_lock(handle):
            path.unlink()
    finally:
        os.close(handle)


def locked_folder(parent: Path, name: str) -> Tuple[Path, Optional[int]]:
    """Create a temporary folder `.NAME.*.tmp`; its lock shows other processes that this one is alive.

    Folders of the same name that killed processes left are removed.

    Returns:
        The folder, and the open file that holds its lock; None where a folder cannot be opened.
    """
    for path in parent.glob(f".{glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError):  # gone already, or of another user
            _remove_folder_if_unlocked(path)
    while True:
        folder = Path(tempfile.mkdtemp(dir=str(parent), prefix=f".{name}.", suffix=".tmp"))
        handle = None
        with contextlib.suppress(OSError):  # on Windows; or another process took it for a leftover
            handle = os.open(str(folder), os.O_RDONLY)
        if (handle is None or try_lock(handle) is not False) and folder.is_dir():
            return folder, handle
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a folder as `locked_folder` creates it, and remove it at the end."""
    folder, handle = locked_folder(parent, name)
    try:
        yield folder
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _remove_folder_if_unlocked(path: Path) -> None:
    found = path.lstat()
    if not hasattr(os, "O_DIRECTORY") or not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return
    handle = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if try_lock(handle):
            shutil.rmtree(str(path), ignore_errors=True)
    finally:
        os.close(handle)


def try_lock(handle: int) -> Optional[bool]:
    """Lock an open file until it is closed, which the system does when the process ends, however it ends.

    Returns:
        True; False if another open file holds the lock; None if the file system or the platform has no such locks, as
        NFS without its lock service.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `json_text`, atomically."""
    write_atomic(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` as indented JSON; NaN is refused."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def cache_folder() -> Path:
    """Folder of built files: $ROBUST_EDGE_CACHE, $XDG_CACHE_HOME/robust-edge, or ~/.cache/robust-edge."""
    own, base = os.environ.get("ROBUST_EDGE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return Path(base or os.path.expanduser("~/.cache")) / "robust-edge"


def umask() -> int:
    """The permission bits that this process removes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
