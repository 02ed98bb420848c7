"""The sparse engine's C, as a row of the table of formats."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Iterable, List, Mapping, Tuple, Type

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Format, Origin
from robust_edge_runtimes.formats.native.engine import FLAGS, HEADER, SOURCE, find_compiler
from robust_edge_runtimes.formats.native.runtime import FromSourceRuntime, NativeRuntime

LIBRARY = re.compile(r"model-[0-9a-f]{12}-[0-9a-f]{12}-[0-9a-f]{12}\.so")
PROGRAM = "int answer(void) { return 42; }\n"


class NativeFormat(Format):
    """`model.c` and `weights.bin`, compiled on the device."""

    description = "the sparse engine, C"
    remedy = "apt install gcc (or with your system's package manager)"
    code_files = (SOURCE, HEADER)

    def runtime(self) -> Type[BaseRuntime]:
        """The compiled network, called through ctypes."""
        return NativeRuntime

    def runtime_from_source(self) -> Type[BaseRuntime]:
        """The same network, compiled again where there is a compiler."""
        return NativeRuntime if find_compiler() is None else FromSourceRuntime

    def exact_runtime(self, full_range: bool) -> Type[BaseRuntime]:
        """The same network, compiled again; a library of the bundle is not loaded, whatever this machine lacks."""
        return FromSourceRuntime

    def compiled_files(self, names: Iterable[str]) -> Tuple[str, ...]:
        """The libraries."""
        return tuple(name for name in names if LIBRARY.fullmatch(name))

    def origins(self, bundle: Bundle, model: BaseRuntime) -> Mapping[str, Origin]:
        """The libraries; the one that this CPU and this compiler make of the source can be compared."""
        compiled = model.compiled if isinstance(model, FromSourceRuntime) else None
        own = f"{model.info.version}.so"
        return {
            name: Origin.NO_COMPILER
            if compiled is None
            else Origin.EQUAL
            if compiled == (bundle.path / name).read_bytes()
            else Origin.DIFFERENT
            if name == own
            else Origin.UNKNOWN
            for name in self.compiled_files(bundle.manifest.files)
        }

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


def _compile_and_call(command: List[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "answer.c", Path(folder) / "answer.so"
        source.write_text(PROGRAM, encoding="ascii")
        call = [*command, *FLAGS, str(source), "-o", str(library), "-lm"]
        done = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0 or ctypes.CDLL(str(library)).answer() != 42:
            raise BackendUnavailable(f"{command[0]} does not compile: {done.stdout.decode(errors='replace')[:200]}")
