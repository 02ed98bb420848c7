"""The README's commands and its Python, run in order in an empty folder; the network is trained for less long."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.commands import run

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

SHORTER = {"compress": ("--epochs", "6"), "evaluate": ("--limit", "50"), "bench": ("--seconds", "0.1", "--images", "5")}


def test_the_blocks_of_the_readme_run(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert [kind for kind, _ in blocks] == ["sh", "sh", "sh", "python", "sh"]
    for kind, text in blocks:
        if kind == "python":
            subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True)
            continue
        for line in text.splitlines():
            words = line.split()
            run(*words, *SHORTER.get(words[1], ()), cwd=tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_files_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).exists(), name


def test_the_own_scheme_network_and_data_of_the_training_page_run(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    (_, scheme), (kind, code) = BLOCK.findall(text)
    (command,) = re.findall(r"^    (robust-edge compress --arch my_package:.*)$", text, re.MULTILINE)
    assert kind == "python"
    (tmp_path / "my_package.py").write_text(code)
    (tmp_path / "my_scheme.py").write_text(scheme)
    run(*command.split(), "--epochs", "2", "--scheme", "my_scheme:Even", cwd=tmp_path)
    assert (tmp_path / "runs" / "shades" / "checkpoint.json").is_file()
