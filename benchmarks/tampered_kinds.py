"""Does `robust-edge verify` with default settings catch every kind of tampered bundle, and for its own reason?

    python benchmarks/tampered_kinds.py [--only TEXT] [-o benchmarks/results/tampered_kinds.json]

The kinds are those of the table in docs/verification-tampered.md, made by `tests/attacks/kinds`: every form of every
row. Each is verified by `robust-edge verify BUNDLE --against RUN --seed 1 --limit 100`. For a graph or script
that does not end, a limit is smaller than by default; its row records it. Beside them the honest bundles are verified,
the first of which must pass.

A kind is caught if the command ends with the demanded exit code and names all demanded reasons and words. A refusal
(exit 4) must be one line. With --only, the new rows replace those of the output file. Exit 1 if a kind is not caught.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from result_file import RESULTS, provenance, write_result

ROOT = Path(__file__).parents[1]
PASSED, REFUSED, UNDECIDED = 0, 4, 5
HONEST = ("x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse")
GIVEN = ("--seed", "1", "--limit", "100")  # images; the digits have 357 for testing, which takes three times as long


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only kinds whose row or form holds this text")
    parser.add_argument("--work", type=Path, help="a folder for runs and honest bundles, to use them again")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "tampered_kinds.json")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    kinds = importlib.import_module("tests.attacks.kinds.table").KINDS
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_STATE_HOME"] = str(work / "state")  # the verdicts here are not among those of the user
        shop = importlib.import_module("tests.attacks.workshop").Workshop(work)
        with shop.importable():
            rows = [seen(kind, shop) for kind in kinds if options.only in f"{kind.row} {kind.form}"]
            honest = [] if options.only else [verified_honest(target, shop) for target in HONEST]
    if options.only and options.out.exists():
        before = json.loads(options.out.read_text("utf-8"))
        honest, rows = before["honest"], with_new(rows, before["rows"], kinds)
    versions = provenance("python benchmarks/tampered_kinds.py", "torch", "onnxruntime")
    write_result(options.out, {**versions, "honest": honest, "rows": rows})
    missed = [f"{row['row']}: {row['form']}" for row in rows if not row["caught"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} caught", *missed, sep="\n")
    return 0 if not missed and honest_outcomes_hold(honest) else 1


def with_new(rows: list[dict[str, Any]], before: list[dict[str, Any]], kinds: list[Any]) -> list[dict[str, Any]]:
    """The rows of an earlier result, those of the same kinds replaced, in the order of the kinds."""
    found = {(row["row"], row["form"]): row for row in (*before, *rows)}
    return [found[kind.row, kind.form] for kind in kinds if (kind.row, kind.form) in found]


def honest_outcomes_hold(honest: list[dict[str, Any]]) -> bool:
    """Whether the first honest bundle passed, and no other raised anything."""
    passed = all(row["exit"] == PASSED for row in honest[:1])
    return passed and all(row["exit"] in (PASSED, UNDECIDED) and not row["reasons"] for row in honest)


def seen(kind: Any, shop: Any) -> dict[str, Any]:
    """Make one kind, verify it, and compare what the command said with what it should."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        kind.make(shop, path)
        found, text, verdict = verified(path, shop, kind)
        untouched = not kind.mark or not (path.parent / kind.mark).exists()
    caught = found["exit"] == kind.exit and set(kind.reasons.split()) <= set(found["reasons"]) and untouched
    caught = caught and all(word.format(path / "model.onnx") in text for word in kind.words)
    caught = caught and (kind.holds is None or kind.holds(verdict, shop)) and one_line(found, text)
    demanded = [*kind.reasons.split(), *kind.words]
    row = {"row": kind.row, "form": kind.form, "demanded": {"exit": kind.exit, "said": demanded}, **found}
    row |= {"options": " ".join(kind.options), "caught": caught}
    print(json.dumps(row, ensure_ascii=False), flush=True)
    return row


def verified_honest(target: str, shop: Any) -> dict[str, Any]:
    """The verdict on the robust network's own bundle."""
    found, _, _ = verified(shop.bundle(target), shop)
    print(target, found, flush=True)
    return {"target": target, **found}


def one_line(found: dict[str, Any], text: str) -> bool:
    """Whether a refusal is one plain line."""
    return found["exit"] != REFUSED or (text.count("error: ") == 1 and "Traceback" not in text)


def verified(path: Path, shop: Any, kind: Any = None) -> tuple[dict[str, Any], str, Any]:
    """What `robust-edge verify` said: in short, in full with single spaces, and as verify.json (None if refused)."""
    with tempfile.TemporaryDirectory() as folder:
        out, temporary = Path(folder) / "verify.json", Path(folder) / "tmp"
        temporary.mkdir()
        command = [sys.executable, "-m", "robust_edge", "verify", path, "--against", shop.run().path, *GIVEN]
        command += ["-o", out, *(kind.options if kind else ())]
        search = [ROOT, ROOT / "exporters", ROOT / "runtimes", shop.folder]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search)), "TMPDIR": str(temporary)}
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if kind and kind.meanwhile:
            wait_for_copy(process, path, temporary)
            kind.meanwhile(shop, path)
        output, errors = process.communicate()
        seconds = round(time.perf_counter() - start, 1)
        verdict = json.loads(out.read_text("utf-8")) if out.exists() else None
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    reasons = list(dict.fromkeys(reason.partition(":")[0] for reason in verdict["reasons"])) if verdict else []
    found = {
        "exit": process.returncode,
        "outcome": verdict["outcome"] if verdict else "refused",
        "reasons": reasons,
        "error": " ".join(lines).replace(str(path.parent), "").replace(str(shop.folder), ""),
        "seconds": seconds,
    }
    return found, " ".join((output + errors).split()), verdict


def wait_for_copy(process: subprocess.Popen[str], path: Path, temporary: Path) -> None:
    """Return when `verify` has copied the bundle into its temporary folder."""
    sizes = {file.relative_to(path): file.stat().st_size for file in path.rglob("*") if file.is_file()}
    while process.poll() is None:
        for copy in temporary.glob("**/bundle"):
            if all((copy / name).is_file() and (copy / name).stat().st_size == size for name, size in sizes.items()):
                return
        time.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
