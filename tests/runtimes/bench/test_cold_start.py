"""The figures of a fresh process are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def test_the_peak_is_not_the_parents(sealed: Path) -> None:
    held = np.ones(400 << 20, np.uint8)
    program = "from robust_edge_runtimes.bench.cold_start import main; main()"
    command = [sys.executable, "-c", program, str(sealed), "1", str(os.getpid())]
    figures = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert held[-1] == 1
    assert 10 << 20 < figures["peak_rss_bytes"] < held.size
    assert figures["load_ns"] > 0
    assert figures["first_ns"] > 0
