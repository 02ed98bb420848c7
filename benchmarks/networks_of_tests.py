"""Do the small networks of the tests go the whole way to every CPU target of x86 and two of ARM, as their outcomes say?

    python benchmarks/networks_of_tests.py [NETWORK ...] [-o benchmarks/results/networks_of_tests.json]

The networks and their outcomes are those of `tests/robust_edge/checking/small_networks.py`. Each is checked and, on
scikit-learn's digits, trained for some epochs; then come, for each target, export, verify in its default modes, and
bench, from the command line. A command must do what `check` had said, and `check` must say what the outcome states: a
target works, or lacks the named operator; or the network is refused before it is trained.

Exit 1 if an outcome is another one. An UNDECIDED verdict is no failure: 60 images show little.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from networks import TARGETS, Walk, add_row, row_of, write_images
from result_file import RESULTS

HERE = Path(__file__).parents[1] / "tests/robust_edge/checking"
SIZE, EPOCHS = 8, 20


def as_stated(row: dict[str, Any], outcome: dict[str, str] | str) -> bool:
    """Whether a row says what the outcome states: targets with the operators they lack, or words of a refusal."""
    if isinstance(outcome, str):
        return bool(re.search(outcome, row.get("refused", "")))
    lacking = {name: said["check"].partition(" ")[0] for name, said in row.get("targets", {}).items()}
    return "refused" not in row and lacking == {name: outcome.get(name, "works") for name in lacking}


def main() -> int:
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    outcomes = importlib.import_module("small_networks").OUTCOMES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(outcomes))
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "networks_of_tests.json")
    given = parser.parse_args()
    holds = True
    with tempfile.TemporaryDirectory() as images:
        write_images(Path(images), SIZE, 1)
        walk = Walk(images=Path(images), targets=(*TARGETS, "arm-cpu"), epochs=EPOCHS)
        for name in given.networks:
            with tempfile.TemporaryDirectory() as folder:
                row = row_of(f"small_networks:{name}", walk, Path(folder))
            row |= {"network": name, "size": SIZE, "holds": row["holds"] and as_stated(row, outcomes[name])}
            add_row(given.out, row, "python benchmarks/networks_of_tests.py", list(outcomes))
            holds &= row["holds"]
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
