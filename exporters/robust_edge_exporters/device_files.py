"""The files of a bundle for use on the device: run.py, README, requirements, Dockerfile."""

from __future__ import annotations

import json
import string
from pathlib import Path

from robust_edge_exporters.artifact import ExportedArtifact
from robust_edge_exporters.formats.table import format_named
from robust_edge_exporters.schema import manifest_schema
from robust_edge_exporters.standalone import definitions
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.manifest import NO_IMAGES, Expected, Source
from robust_edge_runtimes.verdict.measurement import Parity

SCHEMA = "manifest.schema.json"


def write_scripts(folder: Path, target: Target, classes: tuple[str, ...]) -> None:
    """Write run.py with the format's backend, the format's extra files, Dockerfile, labels and schema."""
    row = format_named(target.format)
    run = row.template("run.py").replace("# $backend\n", row.backend()).replace("$needs", row.needs)
    for part in ("pictures", "closeness"):
        run = run.replace(f"# ${part}\n", definitions(f"robust_edge_runtimes.core.{part}") + "\n")
    dockerfile = string.Template(row.template("Dockerfile"))
    _write(folder / "run.py", run)
    _write(folder / SCHEMA, json.dumps(manifest_schema(), indent=2) + "\n")
    _write(folder / "requirements.txt", _lines(target.requirements))
    _write(folder / "labels.txt", _lines(classes))
    for name, text in row.extra_files().items():
        _write(folder / name, text)
    _write(folder / "Dockerfile", dockerfile.substitute(description=target.description, image=target.image))


def write_readme(
    folder: Path, target: Target, source: Source, expected: Expected, artifact: ExportedArtifact, parity: Parity
) -> None:
    """Write README.md: the contents of the bundle, its accuracies, and the commands to run it."""
    row = format_named(target.format)
    commands = [
        row.prepare_command(target),
        "python3 run.py replay      # the stored attack images, scored here: exit 0 if it held",
        "python3 run.py bench       # latency of one image and of 100",
    ]
    values = {
        "target": target.name,
        "description": target.description,
        "python": target.python,
        "runtime": target.runtime,
        "arch": source.arch,
        "kept": f"{100 * artifact.sparsity.keep:.1f}%",
        "accuracy": _accuracy(source, expected),
        "error": f"{parity.max_logit_error:.1g}",
        "agreement": f"{100 * parity.argmax_agreement:.2f}%",
        "commands": "\n".join(f"    {command}" for command in commands),
        "limits": "\n".join(f"- {limit}" for limit in (*target.limits, *artifact.notes)),
    }
    _write(folder / "README.md", string.Template(row.template("README.md")).substitute(values))


def _accuracy(source: Source, expected: Expected) -> str:
    if source.dataset == NO_IMAGES:
        return (
            "Its accuracy and robustness are unknown: it was exported without images, and the "
            f"{expected.images} stored\nimages are noise, labelled by the network itself."
        )
    clean, robust = (f"{100 * share:.1f}%" for share in (expected.clean_accuracy, expected.robust_accuracy))
    return (
        f"On {expected.images} test images the checkpoint behind this file was right on {clean} of the clean ones and "
        f"on\n{robust} under {expected.attack.describe()} with eps {expected.attack.eps:.4g} (pixels in [0, 1])."
    )


def _lines(items: tuple[str, ...]) -> str:
    return "".join(f"{item}\n" for item in items)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
