from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["-m", "robust_edge"], ["-c", "from robust_edge.__main__ import main; main()"]])
def test_the_entry_point_runs_the_command_line(words):
    done = subprocess.run([sys.executable, *words, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("robust-edge")


def test_an_interrupt_during_the_first_imports_is_one_line():
    code = (
        "import builtins\n"
        "from robust_edge import __main__ as entry\n"
        "usual = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'robust_edge.cli': raise KeyboardInterrupt\n"
        "    return usual(name, *rest)\n"
        "builtins.__import__ = interrupted\n"
        "entry.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["error: interrupted before the command started; run it again"]
