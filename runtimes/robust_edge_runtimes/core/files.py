"""Files that are written completely or not at all (temporary name, then rename), hashes, and the cache folder.

Runs on Python 3.6 with the standard library alone, since the scripts of bundles contain it.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Union


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomic(path: Path, data: Union[bytes, str]) -> None:
    """Write `data` so that `path` holds either its old content or all of `data`.

    Raises:
        OSError: the disk is full, or the folder is missing or not writable; `path` is unchanged.
    """
    blob = data.encode() if isinstance(data, str) else data
    handle, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~umask())
        Path(name).replace(path)
    except BaseException:
        if Path(name).exists():
            Path(name).unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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
