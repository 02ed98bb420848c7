"""What this machine can do at best, by C programs that are compiled for it: machine_limits.c and shared_lines.c.

python benchmarks/machine_limits.py
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-funroll-loops", "-pthread")


def machine_limits() -> dict[str, float]:
    """Best rates of one core, per nanosecond, and nanoseconds of a cache line that two cores share, if there are two.

    Raises:
        OSError, CalledProcessError: there is no C compiler, or a program fails.
    """
    limits = core_limits()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        names = ("read_written_line_ns", "write_written_line_ns", "write_read_line_ns")
        limits |= printed_by("shared_lines.c", names, *cores[:2])
    return limits


def core_limits() -> dict[str, float]:
    """Best rates of one core, per nanosecond: multiply-adds of registers and of loaded pixels, and bytes of memory.

    Raises:
        OSError, CalledProcessError: there is no C compiler, or the program fails.
    """
    return printed_by("machine_limits.c", ("mac_per_ns", "loaded_mac_per_ns", "read_bytes_per_ns"))


def printed_by(source: str, names: Sequence[str], *arguments: object) -> dict[str, float]:
    """The numbers that a C program beside this file prints."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        compile_command = ["cc", *FLAGS, str(Path(__file__).with_name(source)), "-o", str(program)]
        subprocess.run(compile_command, check=True, capture_output=True)
        command = [str(program), *map(str, arguments)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(float, text.split()), strict=True))


if __name__ == "__main__":
    print(json.dumps(machine_limits()))
