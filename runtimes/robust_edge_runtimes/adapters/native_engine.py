"""Compiles generated C on the device that runs it, once: cached under source, CPU and compiler.

A library is named `model-SOURCE-CPU-COMPILER.so`, each part a short hash. Code for another CPU would die of an illegal
instruction, so a library is taken only where source and CPU match; one that an exporter on the same kind of machine
left beside the sources saves the compiler altogether.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Collection, List, Optional, Tuple

from robust_edge_runtimes.errors import BackendUnavailable, BundleError

SOURCES = ("model.c", "model.h")
FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")
TIMEOUT_S = 300


def library(folder: Path, shipped: Collection[str] = (), cache: Optional[Path] = None) -> Path:
    """The compiled network of the sources in `folder`, built if this machine has none yet.

    Args:
        folder: holds model.c and model.h, and perhaps a library for this kind of CPU.
        shipped: names in `folder` whose content has been checked; no other library there is ever loaded.
        cache: where libraries are kept; by default `robust-edge` in the user's cache folder.

    Raises:
        BackendUnavailable: no library for this CPU, and no C compiler to make one.
        BundleError: the sources are missing or do not compile.
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
        BackendUnavailable: there is no C compiler.
        BundleError: the sources are missing or do not compile.
    """
    compiler = find_compiler()
    if compiler is None:
        raise _no_compiler()
    name = f"model-{_source_hash(folder)}-{_short(cpu())}-{_short(compiler[1])}.so"
    return _compile(folder, folder / name, compiler[0])


def cache_folder() -> Path:
    """Where libraries are kept: $XDG_CACHE_HOME/robust-edge, or ~/.cache/robust-edge."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "robust-edge"


def cpu() -> str:
    """What `-march=native` depends on: the machine, the CPU's model and its instruction sets."""
    parts = [platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = [platform.processor()]
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant")
    parts += [line for line in lines if line.split("\t")[0].strip().startswith(wanted)]
    return "\n".join(parts)


def find_compiler() -> Optional[Tuple[List[str], str]]:
    """The command of the C compiler ($CC, cc, gcc or clang) and what it says of its version; None without one."""
    for text in (os.environ.get("CC"), "cc", "gcc", "clang"):
        command = shlex.split(text or "")
        if command and shutil.which(command[0]):
            said = subprocess.run(
                [*command, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            if said.returncode == 0:
                return command, said.stdout.decode(errors="replace")
    return None


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _source_hash(folder: Path) -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for name in SOURCES:
        try:
            digest.update((folder / name).read_bytes())
        except OSError as cause:
            raise BundleError(f"{folder / name} cannot be read ({cause}); export the bundle again") from cause
    return digest.hexdigest()[:12]


def _any_library(folder: Path, shipped: Collection[str], cache: Path, stem: str) -> Path:
    found = [folder / name for name in sorted(shipped) if name.startswith(stem) and name.endswith(".so")]
    found += sorted(cache.glob(stem + "*.so"))
    if not found:
        raise _no_compiler()
    return found[0]


def _no_compiler() -> BackendUnavailable:
    return BackendUnavailable(
        "the sparse engine is C source that is compiled on first use, and no C compiler was found (cc, gcc, clang): "
        "apt install gcc, or set CC"
    )


def _compile(folder: Path, target: Path, command: List[str]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=str(target.parent), suffix=".part")
    os.close(handle)
    try:
        call = [*command, *FLAGS, str(folder / "model.c"), "-o", name, "-lm"]
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip().splitlines()
            raise BundleError(f"{shlex.join(command)} cannot compile {folder / 'model.c'}: {said[0] if said else '?'}")
        Path(name).chmod(0o755)
        Path(name).replace(target)
    finally:
        Path(name).unlink() if Path(name).exists() else None
    return target
