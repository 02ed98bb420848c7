"""Predicts the sparse engine's inner loops on ARM cores, without one, by LLVM's machine-code analyser.

    python benchmarks/arm_model.py --out benchmarks/results/arm_model.json

The loops of csrc are compiled for each core by clang, and llvm-mca simulates their bodies with its model of the core's
pipelines: decoding, dispatch, execution ports and latencies. What it does not simulate makes these figures bounds, not
measurements: every load hits the first-level cache, every branch is predicted, and nothing outside the loop is counted.
Most versions of LLVM simulate A72 and A78 by the model of A57, which begins one multiply-add of four floats in a cycle;
A78 begins two, so its rates are too low and its shares only hints.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from result_file import RESULTS, provenance, write_result

CSRC = Path(__file__).parents[1] / "exporters/robust_edge_exporters/native/csrc"
CORES = ("cortex-a57", "cortex-a72", "cortex-a78")
LANES = 4  # floats of a NEON register
ITERATIONS = 1000
UNITS = (1, 2, 3, 4, 6)  # of 16 pixels in a register tile
SOURCE = """
#include "conv_dense.h"
#include "nonzeros.h"

#define SPARSE(n) \\
    struct nonzeros sparse_##n(vec *out, const float *in, struct nonzeros z, uint32_t count) { \\
        vec sum[n * UNIT_VECTORS]; \\
        UNROLL for (int v = 0; v < n * UNIT_VECTORS; v++) \\
            sum[v] = out[v]; \\
        z = accumulate(sum, n, in, UNIT, UNIT, z, count); \\
        UNROLL for (int v = 0; v < n * UNIT_VECTORS; v++) \\
            out[v] = sum[v]; \\
        return z; \\
    }
"""
LIMIT = "".join(f"fmla v{i}.4s, v30.4s, v31.4s\n" for i in range(16))  # operands in registers, sums independent
DENSE = "void dense(const struct register_tile *t) { dense_tile(t, 0, 0, DENSE_VECTORS); }\n"


def source(units: tuple[int, ...]) -> str:
    """A C file with one function for each loop."""
    return SOURCE + "".join(f"SPARSE({n})\n" for n in units) + DENSE


def assembly(core: str, folder: Path) -> str:
    """The loops as clang compiles them for a core."""
    path, text = folder / "loops.c", folder / "loops.s"
    path.write_text(source(UNITS), encoding="utf-8")
    flags = ["--target=aarch64-linux-gnu", f"-mcpu={core}", "-std=c99", "-O3", "-ffp-contract=fast", "-S"]
    headers = [f"-I{CSRC}", "-isystem", "/usr/aarch64-linux-gnu/include"]
    subprocess.run(["clang", *flags, *headers, str(path), "-o", str(text)], check=True)
    return text.read_text(encoding="utf-8")


def loop_of(text: str, function: str) -> str:
    """The body of the loop of a function that has the most multiply-adds.

    Raises:
        ValueError: the function has no loop of one block with multiply-adds.
    """
    body = text.split(f"\n{function}:")[1].split(".cfi_endproc")[0]
    blocks = re.findall(r"^(\.LBB\w+):[^\n]*\n((?:(?!^\.LBB).*\n)*?.*\bb\.\w+\t\1\n)", body, re.MULTILINE)
    loops: list[str] = [block for _, block in blocks if "fmla" in block]
    if not loops:
        raise ValueError(f"{function} has no loop of one block with multiply-adds")
    return max(loops, key=lambda loop: loop.count("fmla"))


def cycles(loop: str, core: str) -> float:
    """Cycles of one iteration, in the model's steady state."""
    command = ["llvm-mca", "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", f"-iterations={ITERATIONS}"]
    done = subprocess.run(command, input=loop, capture_output=True, text=True, check=True)
    (total,) = re.findall(r"Total Cycles:\s+(\d+)", done.stdout)
    return int(total) / ITERATIONS


def rows(core: str, text: str) -> list[dict[str, Any]]:
    """For each loop its multiply-adds of one float per cycle, and the part of the core's limit that this is."""
    found, limit = [], LANES * LIMIT.count("fmla") / cycles(LIMIT, core)
    for name in (*(f"sparse_{n}" for n in UNITS), "dense"):
        loop = loop_of(text, name)
        rate = LANES * loop.count("fmla") / cycles(loop, core)
        found.append({"core": core, "loop": name, "macs_per_cycle": round(rate, 2), "share": round(rate / limit, 3)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", nargs="+", default=CORES, metavar="CORE", help="any that clang's -mcpu knows")
    parser.add_argument("--out", type=Path, default=RESULTS / "arm_model.json")
    choice = parser.parse_args()
    version = subprocess.run(["llvm-mca", "--version"], capture_output=True, text=True, check=True).stdout
    report: dict[str, Any] = {
        "environment": {
            **provenance(shlex.join(["python", "benchmarks/arm_model.py", *sys.argv[1:]])),
            "llvm": re.findall(r"LLVM version (\S+)", version)[0],
        },
        "loops": [],
    }
    print("| core | loop | multiply-adds per cycle | of the limit |\n|---|---|---|---|")
    for core in choice.cores:
        with tempfile.TemporaryDirectory() as folder:
            for row in rows(core, assembly(core, Path(folder))):
                report["loops"].append(row)
                print(f"| {core} | {row['loop']} | {row['macs_per_cycle']:.2f} | {row['share']:.0%} |")
    write_result(choice.out, report)


if __name__ == "__main__":
    main()
