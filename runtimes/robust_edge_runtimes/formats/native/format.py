"""The sparse engine's C: its row of the table of formats."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import List, Type

from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Format
from robust_edge_runtimes.formats.native.engine import FLAGS, find_compiler
from robust_edge_runtimes.formats.native.runtime import NativeRuntime

PROGRAM = "int answer(void) { return 42; }\n"


class NativeFormat(Format):
    """`model.c` and `weights.bin`, compiled on the device."""

    description = "the sparse engine, C"
    remedy = "apt install gcc (or your system's way)"

    def runtime(self) -> Type[BaseRuntime]:
        """The compiled network, called through ctypes."""
        return NativeRuntime

    def probe(self) -> str:
        """Compile a small function and call it: a compiler may be there without the headers that it needs."""
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
