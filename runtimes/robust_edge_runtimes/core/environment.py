"""The machine on which something is measured."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Optional

import numpy as np

CONTAINER_MEMORY = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of this container in bytes, of cgroups version 2 and 1."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a latency depends on; None where the operating system does not report it.

    Attributes:
        cpu: its name; on x86 with family and model, which tell processors of one name apart.
        cores: cores this process may run on.
        governor: the CPU frequency governor.
        power_mode: a Jetson's power mode, as `nvpmodel -q` prints it.
        utc: when this was read, ISO 8601. It is not compared, so that a machine equals itself.
        board: model name of the board, where there is one (Jetson, Raspberry Pi); their CPU names are all alike.
    """

    cpu: str
    architecture: str
    cores: int
    system: str
    python: str
    numpy: str
    governor: Optional[str]
    power_mode: Optional[str]
    utc: str = dataclasses.field(compare=False)
    board: Optional[str] = None


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=_cpu_name(),
        architecture=platform.machine(),
        cores=available_cores(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        numpy=np.__version__,
        governor=_first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        power_mode=_power_mode(),
        utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        board=(_first_line("/proc/device-tree/model") or "").rstrip("\0") or None,
    )


def available_cores() -> int:
    """Cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_rss_bytes() -> int:
    """Peak resident memory of this process. Linux's ru_maxrss is not used: it includes the time before exec."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory() -> Optional[int]:
    """Bytes that are free on this machine, at most the limit of its container; None where neither can be read."""
    found = []
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    for path in CONTAINER_MEMORY:
        text = _first_line(path) or ""
        found += [int(text)] if text.isdecimal() else []  # "max": no limit
    return min(found, default=None)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found: Dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name = found.get("model name") or found.get("Model") or platform.machine()
    if "cpu family" in found and "model" in found:  # in virtual machines processors of several kinds have one name
        name += f" (family {found['cpu family']}, model {found['model']})"
    return name


def _first_line(path: str) -> Optional[str]:
    try:
        return Path(path).read_text().splitlines()[0]
    except (OSError, IndexError):
        return None


def _power_mode() -> Optional[str]:
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        answer = subprocess.run([tool, "-q"], stdout=subprocess.PIPE, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return " ".join(answer.stdout.decode(errors="replace").split())
