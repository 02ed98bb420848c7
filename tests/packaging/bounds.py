"""Print a file for `pip install -c`: the oldest versions that pyproject.toml allows, or no bound for the newest ones.

    python tests/packaging/bounds.py oldest > oldest.txt

The tools of extra `dev` stay at the versions of constraints.txt. The Makefile's targets `oldest` and `newest` use it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


def floors() -> dict[str, Version]:
    """Every distribution that this Python needs at run time, to the highest of its lower bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name, found in extras.items() if name != "dev" for line in found)]
    bounds: dict[str, Version] = {}
    for needed in map(Requirement, lines):
        if needed.name == project["name"] or (needed.marker is not None and not needed.marker.evaluate()):
            continue
        low = [Version(bound.version) for bound in needed.specifier if bound.operator == ">="]
        bounds[needed.name] = max([*low, *([bounds[needed.name]] if needed.name in bounds else [])])
    return bounds


def constraints(which: str) -> list[str]:
    """Lines of a constraints file; `which` is oldest or newest."""
    oldest = floors()
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()]
    others = [line for line in lines if line and Requirement(line).name.lower() not in oldest]
    return [*(f"{name}=={version}" for name, version in sorted(oldest.items()) if which == "oldest"), *others]


if __name__ == "__main__":
    print(*constraints(sys.argv[1]), sep="\n")
