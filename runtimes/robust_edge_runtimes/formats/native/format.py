"""The sparse engine's C, as a row of the table of formats."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterable, List, Tuple, Type

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Format, Prebuilt
from robust_edge_runtimes.formats.native.engine import FLAGS, find_compiler
from robust_edge_runtimes.formats.native.runtime import FromSourceRuntime, LibraryRuntime, NativeRuntime

LIBRARY = re.compile(r"model-[0-9a-f]{12}-[0-9a-f]{12}-[0-9a-f]{12}\.so")
PROGRAM = "int answer(void) { return 42; }\n"


class NativeFormat(Format):
    """`model.c` and `weights.bin`, compiled on the device."""

    description = "the sparse engine, C"
    remedy = "apt install gcc (or with your system's package manager)"

    def runtime(self) -> Type[BaseRuntime]:
        """The compiled network, called through ctypes."""
        return NativeRuntime

    def runtime_from_source(self) -> Type[BaseRuntime]:
        """The same network, compiled again."""
        return FromSourceRuntime

    def compiled_files(self, names: Iterable[str]) -> Tuple[str, ...]:
        """The libraries."""
        return tuple(name for name in names if LIBRARY.fullmatch(name))

    def prebuilt(self, bundle: Bundle, model: BaseRuntime) -> Tuple[Prebuilt, ...]:
        """The bundle's libraries; what this CPU and this compiler make of the source can be compared byte by byte."""
        return tuple(_prebuilt(bundle, name, model) for name in self.compiled_files(bundle.manifest.files))

    def probe(self) -> str:
        """Compile a small function and call it, since a compiler may be installed without its headers."""
        found = find_compiler()
        if found is None:
            raise BackendUnavailable(
                "no C compiler (cc, gcc, clang); a library shipped for this very CPU would still run"
            )
        command, version = found
        _compile_and_call(command)
        return f"{' '.join(command)}: {version.splitlines()[0] if version else 'version unknown'}"


def _prebuilt(bundle: Bundle, name: str, model: BaseRuntime) -> Prebuilt:
    compiled = model.compiled if isinstance(model, FromSourceRuntime) else None
    if compiled is None:
        return Prebuilt(name, reason="attacked as it is, since there is no C compiler here (cc, gcc, clang)")
    if compiled == (bundle.path / name).read_bytes():
        return Prebuilt(name, equal=True)
    here = model.info.version
    if not name.startswith(here.rpartition("-")[0]):
        return Prebuilt(name, reason="compiled for another CPU or from another source, so that it does not run here")
    same = name == f"{here}.so"
    reason = "not the bytes that this compiler makes of its source" if same else "made by another compiler"
    return Prebuilt(name, open=_opener(bundle, name), reason=reason)


def _opener(bundle: Bundle, name: str) -> Callable[[int], BaseRuntime]:
    runtime = functools.partial(LibraryRuntime, name, bundle.artifact_path, bundle.manifest)
    return lambda threads: runtime(threads=threads).open()


def _compile_and_call(command: List[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "answer.c", Path(folder) / "answer.so"
        source.write_text(PROGRAM, encoding="ascii")
        call = [*command, *FLAGS, str(source), "-o", str(library), "-lm"]
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or ctypes.CDLL(str(library)).answer() != 42:
            raise BackendUnavailable(f"{command[0]} does not compile: {done.stdout.decode(errors='replace')[:200]}")
