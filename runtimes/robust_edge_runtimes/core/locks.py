"""Advisory locks: an output, a file or a folder, has one writer at a time.

A writer holds the flock of `.NAME.lock` beside the output, which says in JSON who writes. The system releases the flock
when the process ends, however it ends; the next writer therefore takes over the lock file that a killed process left. A
lock file that somebody deletes protects nothing any more.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import getpass
import json
import os
import platform
import shlex
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import try_lock
from robust_edge_runtimes.core.links import resolved

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
TEMPORARY = "..12345678.tmp"  # what the name of a temporary file has more than that of the output
MAX_COMMAND = 200
_own: Dict[Path, Tuple[Tuple[int, int], bool]] = {}  # by lock file: process and thread, and whether it is held


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of an output; the thread that holds it may enter again, and no process that is forked meanwhile.

    Missing parent folders are created, and removed at the end if they are empty. Entering shows that the output can be
    written, before any work is done for it. In a folder that this process may not write, a folder as output is locked
    itself, without a file.

    Args:
        path: the file or folder to write; it need not exist.

    Yields:
        Whether the lock is held; False on a file system without locks, after a warning.

    Raises:
        InputError: another process or thread writes the output, its name is too long, or a parent is a file; or the
            output is the root of the file system, or lies behind a loop of links.
        OSError: the folder of the output cannot be written, or the disk is full.
    """
    output = resolved(path)
    if not output.name:
        raise InputError(f"{path} is the root of the file system; choose another path")
    file, own = output.parent / f".{output.name}.lock", (os.getpid(), threading.get_ident())
    holder, held = _own.get(file, (None, False))
    if holder == own:
        yield held
        return
    created = _create_parents(output)
    try:
        handle = _acquire(file, output)
        _own[file] = (own, handle is not None)
        try:
            yield handle is not None
        finally:
            if own[0] == os.getpid():  # else a fork of the holder that ends
                del _own[file]
                if handle is not None:
                    _release(handle, file)
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in created:
                folder.rmdir()


def _create_parents(output: Path) -> List[Path]:
    """Create the missing parents of the output; returns them from the innermost outwards."""
    nearest = next(folder for folder in output.parents if folder.exists())
    if not nearest.is_dir():
        raise InputError(f"{output} would be inside {nearest}, which is a file; choose another path")
    created = [folder for folder in output.parents if not folder.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    longest = os.pathconf(str(output.parent), "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if len(os.fsencode(output.name)) + len(TEMPORARY) > longest:
        raise InputError(
            f"the name {output.name[:40]}... has {len(os.fsencode(output.name))} bytes; choose one of at most "
            f"{longest - len(TEMPORARY)}"
        )
    return created


def _acquire(file: Path, output: Path) -> Optional[int]:
    """The handle of the locked file; None on a file system without locks."""
    while True:
        output.parent.mkdir(parents=True, exist_ok=True)  # a writer that ends removes the empty folders it created
        handle, own = _opened(file, output)
        try:
            held = try_lock(handle)
            if held is False:
                holder = _holder(handle, file)
                raise InputError(f"{output} is being written by {holder}; wait, or choose another output")
            if held is None:
                _warn_without_locks(file, output, own=own)
                return None
            if not own:
                file.unlink()  # left by a process of another user that is dead
            elif os.fstat(handle).st_nlink:  # else removed by its holder between opening and locking
                _describe(handle, file)
                kept, handle = handle, -1
                return kept
        finally:
            if handle >= 0:
                os.close(handle)


def _opened(file: Path, output: Path) -> Tuple[int, bool]:
    """A handle to lock, and whether this process may write the file; the output itself if its parent is read-only."""
    flags = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(str(file), os.O_RDWR | os.O_CREAT | flags, 0o666), True
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        if file.exists():
            return os.open(str(file), os.O_RDONLY | flags), False
        if output.is_dir() and os.access(str(output), os.W_OK | os.X_OK):
            return os.open(str(output), os.O_RDONLY), True
        raise


def _describe(handle: int, file: Path) -> None:
    """Write who holds the lock, unless the output itself is locked."""
    if not file.exists():
        return
    try:
        os.ftruncate(handle, 0)
        os.write(handle, (json.dumps(_this_process(), indent=2) + "\n").encode())
    except OSError:
        file.unlink()
        raise


def _this_process() -> Dict[str, Any]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "python"
    return {
        "user": _user(),
        "host": platform.node(),
        "pid": os.getpid(),
        "since": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "command": command[:MAX_COMMAND],
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user without a name, as in containers
        return str(os.getuid())


def _holder(handle: int, file: Path) -> str:
    """Who holds the lock, as far as the lock file says it."""
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        told = "{command} (user {user}, process {pid} on {host}, since {since})".format(**found)
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return f"another command, which holds {file.name}"
    return "".join(char for char in told if char.isprintable())[: 2 * MAX_COMMAND]


def _warn_without_locks(file: Path, output: Path, *, own: bool) -> None:
    if own:
        with contextlib.suppress(OSError):
            file.unlink()
    warnings.warn(
        f"the file system of {output.parent} has no file locks (NFS without its lock service?): nothing keeps a second "
        f"command from writing {output.name}",
        stacklevel=5,
    )


def _release(handle: int, file: Path) -> None:
    with contextlib.suppress(OSError):  # the folder may have been deleted, and the output itself has no lock file
        if os.path.samestat(os.fstat(handle), file.stat()):  # else another writer's, after this one was deleted
            file.unlink()
    os.close(handle)
