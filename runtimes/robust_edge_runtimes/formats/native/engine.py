"""Compiles the C of the sparse engine on the device that runs it, once, and calls it through ctypes.

Every native bundle contains it, joined with the modules that it imports, as engine.py, which needs only numpy and a C
compiler. So it runs on Python 3.6 and imports from this package by `from MODULE import NAME` alone.

A library is named `model-SOURCE-CPU-COMPILER.so`, each part a short hash, and kept in $ROBUST_EDGE_CACHE or
~/.cache/robust-edge. Code for another CPU would be killed by an illegal instruction, so a library is loaded only where
source and CPU match. If the exporter ran on the same kind of machine, the bundle holds one, and no compiler is needed.
"""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, Collection, List, Optional, Tuple

import numpy as np

from robust_edge_runtimes.core.files import cache_folder, temporary_folder

SOURCE, HEADER, WEIGHTS = "model.c", "model.h", "weights.bin"
FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")
TIMEOUT_S = 300
ALIGNMENT = 64


class EngineError(Exception):
    """Something is missing or failed on this machine; the message says in one line what to do."""


class DamagedError(EngineError):
    """The files are damaged or were not written by an export."""


def library(folder: Path, shipped: Collection[str] = (), cache: Optional[Path] = None) -> Path:
    """The compiled network of the sources in `folder`, built if this machine has none yet.

    Args:
        folder: holds model.c and model.h, and perhaps a library for this kind of CPU.
        shipped: names of files in `folder` whose hashes have been checked; no other library in it is loaded.
        cache: folder for compiled libraries; by default `cache_folder()`.

    Raises:
        EngineError: there is no library for this CPU and no C compiler, or the cache folder is not writable.
        DamagedError: the sources are missing or do not compile.
    """
    stem = f"model-{_source_hash(folder)}-{_short(cpu())}-"
    cache = cache or cache_folder()
    compiler = find_compiler()
    if compiler is None:
        return _any_library(folder, shipped, cache, stem)
    name = stem + _short(compiler[1]) + ".so"
    if name in shipped:
        return folder / name
    if (cache / name).is_file():
        return cache / name
    return _compile(folder, cache / name, compiler[0])


def compile_library(folder: Path) -> Path:
    """Build for this machine's CPU into `folder` itself, as an exporter does for its host.

    Raises:
        EngineError: there is no C compiler.
        DamagedError: the sources are missing or do not compile.
    """
    compiler = find_compiler()
    if compiler is None:
        raise _no_compiler()
    name = f"model-{_source_hash(folder)}-{_short(cpu())}-{_short(compiler[1])}.so"
    return _compile(folder, folder / name, compiler[0])


def cpu() -> str:
    """What `-march=native` depends on: the architecture, the CPU's model and its instruction sets."""
    parts = [platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = [platform.processor()]
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")
    parts += [line for line in lines if line.split("\t")[0].strip().startswith(wanted)]
    return "\n".join(parts)


def find_compiler() -> Optional[Tuple[List[str], str]]:
    """The command of the C compiler ($CC, cc, gcc or clang), and its arguments and version; None without one."""
    for text in (os.environ.get("CC"), "cc", "gcc", "clang"):
        command = shlex.split(text or "")
        if command and shutil.which(command[0]):
            output = subprocess.run(
                [*command, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            if output.returncode == 0:
                return command, " ".join([*command[1:], output.stdout.decode(errors="replace")])
    return None


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _source_hash(folder: Path) -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in (SOURCE, HEADER):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as cause:
            raise DamagedError(f"{folder / name} cannot be read ({cause}); export the bundle again") from cause
    return digest.hexdigest()[:12]


def _any_library(folder: Path, shipped: Collection[str], cache: Path, stem: str) -> Path:
    found = [folder / name for name in sorted(shipped) if name.startswith(stem) and name.endswith(".so")]
    found += sorted(cache.glob(stem + "*.so"))
    if not found:
        raise _no_compiler()
    return found[0]


def _no_compiler() -> EngineError:
    return EngineError(
        "the sparse engine is C source that is compiled on first use, and no C compiler was found (cc, gcc, clang): "
        "apt install gcc, or set CC"
    )


def _compile(folder: Path, target: Path, command: List[str]) -> Path:
    """Build in a temporary folder, then rename: two processes that build at once both get a complete library."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.parent, target.name) as scratch:
            _call_compiler(folder, scratch / target.name, command)
            (scratch / target.name).chmod(0o755)
            (scratch / target.name).replace(target)
    except OSError as cause:
        raise EngineError(
            f"the compiled network cannot be written to {target.parent} ({cause}): set ROBUST_EDGE_CACHE to a "
            "writable folder"
        ) from cause
    return target


def _call_compiler(folder: Path, target: Path, command: List[str]) -> None:
    try:
        arguments = [*command, *FLAGS, str(folder / SOURCE), "-o", str(target), "-lm"]
        done = subprocess.run(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as cause:
        raise EngineError(
            f"{command[0]} did not compile {folder / SOURCE} within {TIMEOUT_S} seconds; copy the library from "
            "another device with this CPU"
        ) from cause
    if done.returncode != 0:
        output = done.stdout.decode(errors="replace").strip().splitlines()
        called = " ".join(map(shlex.quote, command))
        raise DamagedError(f"{called} cannot compile {folder / SOURCE}: {output[0] if output else '?'}")


class Network:
    """One context of a compiled network, which reads the weights in place; calls from several threads run one by one.

    Args:
        path: the shared library.
        weights: the weights file that was exported with it.
        threads: of one inference.

    Raises:
        EngineError: the library cannot be loaded here.
        DamagedError: the weights file is damaged or belongs to another network.
    """

    def __init__(self, path: Path, weights: Path, *, threads: int = 1) -> None:
        self.library = path
        self._functions = _load(path, symbol_prefix(weights.parent))
        self._weights = _read_aligned(weights)
        self._lock = threading.Lock()
        self._context = None  # type: Optional[int]
        self._threads, self._process = threads, os.getpid()
        address, size = self._weights.ctypes.data, self._weights.size
        status = self._functions.check(address, size)
        if status != 0:
            text = self._functions.status_text(status).decode()
            raise DamagedError(f"{weights}: {text}; export the bundle again")
        self._context = self._functions.create(address, size, threads)
        if not self._context:
            raise EngineError(f"{weights}: not enough memory for the network")
        shape = (ctypes.c_int * 4)()
        self._functions.shape(shape)
        self.shape = tuple(shape)

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch.

        Args:
            images: (N, C, H, W) float32, contiguous.

        Returns:
            (N, K) float32, a new array.

        Raises:
            EngineError: the network was closed, or its threads are those of the process that forked this one.
        """
        if self._lost_threads():
            raise EngineError("the network was loaded before this process was forked, which has none of its threads")
        logits = np.empty((len(images), self.shape[3]), np.float32)
        with self._lock:
            if self._context is None:
                raise EngineError(f"{self.library} was closed")
            self._functions.infer(self._context, _address(images), _address(logits), len(images))
        return logits

    def _lost_threads(self) -> bool:
        return self._threads > 1 and self._process != os.getpid()

    @property
    def memory(self) -> int:
        """Bytes that the context holds beyond the weights."""
        return int(self._functions.memory(self._context))

    def close(self) -> None:
        """Stop the threads and free the memory; a second call does nothing."""
        with self._lock:
            context, self._context = self._context, None
        if context is not None and not self._lost_threads():  # destroying waits for the threads
            self._functions.destroy(context)


def _address(array: Any) -> int:
    """The address of a contiguous array, without the cost of `array.ctypes` where the array is writable."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError):  # read-only or empty
        return int(array.ctypes.data)


def symbol_prefix(folder: Path) -> str:
    """What the names of the C functions in `folder` begin with: `re`, unless the export was given another prefix."""
    try:
        found = re.search(r"^void (\w+)_infer\(", (folder / HEADER).read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        found = None
    return found.group(1) if found else "re"


class _Functions:
    """The functions of model.h, named without their prefix."""

    def __init__(self, path: Path, prefix: str) -> None:
        library = ctypes.CDLL(str(path.absolute()))  # a bare name would be searched among the system's libraries

        def function(name: str, result: Any, *arguments: Any) -> Any:
            found = getattr(library, f"{prefix}_{name}")
            found.restype, found.argtypes = result, arguments
            return found

        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.create = function("create", pointer, pointer, size, ctypes.c_int)
        self.check = function("check", ctypes.c_int, pointer, size)
        self.status_text = function("status_text", ctypes.c_char_p, ctypes.c_int)
        self.infer = function("infer", None, pointer, pointer, pointer, ctypes.c_int)
        self.memory = function("memory", size, pointer)
        self.destroy = function("destroy", None, pointer)
        self.shape = function("shape", None, ctypes.POINTER(ctypes.c_int))


def _load(path: Path, prefix: str) -> _Functions:
    try:
        return _Functions(path, prefix)
    except (OSError, AttributeError) as cause:
        raise EngineError(
            f"{path} cannot be loaded ({cause}): install a C compiler (apt install gcc) and delete the library if it "
            "is in the cache; it is then built again"
        ) from cause


def _read_aligned(path: Path) -> np.ndarray:
    """The file's bytes, at the beginning of a cache line."""
    try:
        size = path.stat().st_size
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        data = memory[start : start + size]
        with path.open("rb") as file:
            got = file.readinto(data.data)
    except OSError as cause:
        raise DamagedError(f"{path} cannot be read ({cause}); export the bundle again") from cause
    return data[:got]
