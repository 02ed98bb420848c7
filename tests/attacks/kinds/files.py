"""Files that do harm, that hide bytes, or that change while they are verified."""

from __future__ import annotations

import functools
import mmap
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robust_edge_runtimes.core import bundle as bundles
from tests.attacks import endless, forgery, hidden, libraries, scripts
from tests.attacks.forgery import forged
from tests.attacks.kinds.kind import CSR, NATIVE, PASS, REFUSED, Make, benign, graph, of, row
from tests.attacks.workshop import BENIGN, ROBUST, Workshop

TWO_SECONDS, TWO_GIGABYTES = ("--max-seconds", "2"), ("--max-memory", "2")  # the defaults: 60, and 90% of what is free
NO_PART = ("belong to none of its parts",)
LOADED = "loaded"


def other_source(shop: Workshop, path: Path) -> None:
    harmful = libraries.HARMFUL % path.with_name(LOADED)
    forged(shop.bundle(NATIVE), path, libraries.with_source(harmful))


def harmful_library(shop: Workshop, path: Path) -> None:
    text = libraries.HARMFUL % path.with_name(LOADED) + libraries.EVIL % "count < 0"
    forged(shop.bundle(NATIVE), path, libraries.with_library(text))


def reaching(kind: type) -> Make:
    """TorchScript that writes to a file beside the bundle."""

    def make(shop: Workshop, path: Path) -> None:
        written = str(path.with_name(LOADED))
        forged(shop.bundle(CSR), path, scripts.script(lambda network: kind(network, written)))

    return make


def replace_by(name: str) -> Callable[[Workshop, Path], None]:
    """Put the bundle of another network in this one's place."""

    def change(shop: Workshop, path: Path) -> None:
        shutil.rmtree(path)
        shutil.copytree(shop.bundle(name=name), path)

    return change


def through_memory(_: Workshop, path: Path) -> None:
    """Change the artifact through a shared map, which leaves no trace in the folder."""
    with (path / "model.onnx").open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        half = len(data) // 2
        data[half:] = bytes(len(data) - half)


def of_the_robust(verdict: Mapping[str, Any], shop: Workshop) -> bool:
    return bool(verdict["artifact_sha256"] == bundles.open_bundle(shop.bundle()).manifest.artifact.sha256)


def with_unknown_field(program: Any) -> None:
    program.graph.node[0].MergeFromString(hidden.UNKNOWN)


def without_end(change: Callable[[Any], None]) -> Make:
    return graph(functools.partial(endless.behind, change=change))


ADDED = ("__pycache__/engine.cpython-311.pyc", "GNUmakefile", ".dockerignore")
KINDS = [
    *row(
        "a compiled library that is not its source: alone, in batches, with a mark, by a variable of the environment",
        *(
            (form, of(NATIVE, libraries.with_library(libraries.EVIL % condition)))
            for form, condition in libraries.CONDITIONS.items()
        ),
        reasons="library_differs",
    ),
    *row(
        "a compiled library of another CPU",
        ("", of(NATIVE, beside=libraries.of_another_cpu)),
        reasons="library_unverified",
        words=("another CPU",),
    ),
    *row(
        "another C source, for example one that ends `verify` itself",
        ("", other_source),
        exit=REFUSED,
        words=("model.c, line", "nothing of it was compiled or run"),
        mark=LOADED,
    ),
    *row("a library that does so when it is loaded", ("", harmful_library), reasons="library_differs", mark=LOADED),
    *row(
        "TorchScript that writes files or prints, in `forward` or while it is loaded",
        *(
            (kind.__name__, reaching(kind), {"words": (f"by {operator}",)})
            for kind, operator in scripts.OPERATORS.items()
        ),
        exit=REFUSED,
        mark=LOADED,
    ),
    *row(
        "a graph or script that loops for ever, always or on some images, or asks for 8 GB",
        *(
            (form, make, {"options": options, "words": (words,)})
            for form, make, options, words in (
                ("graph, always", without_end(endless.always), TWO_SECONDS, "1 image by {} did not end within 2 s"),
                ("graph, some images", without_end(endless.on_bright_images), TWO_SECONDS, "images by {} did not end"),
                ("graph, 8 GB", without_end(endless.large_constant), TWO_GIGABYTES, "takes more than 2 GB"),
                ("script, always", of(CSR, scripts.script(scripts.Loops)), TWO_SECONDS, "did not end within 2 s"),
                (
                    "script, with gradients",
                    of(CSR, scripts.script(scripts.LoopsWithGradients)),
                    TWO_SECONDS,
                    "by the twin of",
                ),
                ("script, 8 GB", of(CSR, scripts.script(scripts.Allocates)), TWO_GIGABYTES, "takes more than 2 GB"),
            )
        ),
        exit=REFUSED,
    ),
    *row(
        "a bundle that is replaced by another one while it is verified, or whose bytes a program changes in memory",
        ("by a false one", of(), {"exit": PASS, "meanwhile": replace_by(BENIGN), "holds": of_the_robust}),
        (
            "by the honest one",
            benign(),
            {"reasons": "not_the_checkpoint robust_drop", "meanwhile": replace_by(ROBUST)},
        ),
        ("in memory", of(), {"exit": PASS, "meanwhile": through_memory, "holds": of_the_robust}),
    ),
    *row(
        "any file that no export writes: `__pycache__`, `GNUmakefile`, `.dockerignore`",
        *(
            (
                name.partition("/")[0],
                of(beside=forgery.added(name)),
                {"words": (f"{name} is in the bundle, and no export writes it",)},
            )
            for name in ADDED
        ),
        reasons="rebuild_differs",
    ),
    *row(
        "another `run.py`, requirements or README; files added",
        *(
            (form, of("x86-cpu", change), {"words": words})
            for form, change, words in (
                ("run.py", forgery.importing_more, ("run.py, line", "'import site'")),
                ("requirements", forgery.other_requirements, ("requirements.txt, line 1", "numpy-evil")),
                ("README", forgery.without_readme, ("README.md is missing",)),
                ("a file", forgery.shadowing_numpy, ("numpy.py is in the bundle, and no export writes it",)),
                ("a folder", forgery.empty_folder, ("predict/ is in the bundle, and no export writes it",)),
            )
        ),
        reasons="rebuild_differs",
    ),
    *row(
        "bytes hidden in an ONNX file: in a field that a later one overrides, in unknown or repeated fields, in names",
        ("overridden", of("x86-cpu", hidden.onnx_bytes(hidden.overridden)), {"words": NO_PART}),
        ("unknown", graph(with_unknown_field), {"words": ("it has fields that no export writes",)}),
        ("repeated", graph(hidden.repeated_text), {"words": ("model.onnx",)}),
        ("names", graph(hidden.long_name), {"words": ("no export chooses",)}),
        reasons="rebuild_differs",
    ),
    *row(
        "bytes hidden in a TorchScript archive: between its parts, behind the end of one, in names",
        *(
            (form, of(CSR, change), {"words": words})
            for form, change, words in (
                ("behind all parts", hidden.archive_bytes(hidden.behind_the_end), NO_PART),
                ("comment", hidden.archive_bytes(hidden.in_the_comment), NO_PART),
                ("between parts", hidden.archive_bytes(hidden.between_the_parts), NO_PART),
                ("serial number", hidden.archive_bytes(hidden.in_the_serial_number), ("is no number",)),
                ("behind the end of one", hidden.behind_the_pickle, ("model.ts",)),
                ("names", hidden.archive_bytes(hidden.with_part("extra/" + "x" * 200)), ("of the archive differs",)),
            )
        ),
        reasons="rebuild_differs",
    ),
    *row(
        "bytes hidden in the manifest: blanks, keys that are given twice, long texts",
        ("blanks", of(beside=forgery.written_as(forgery.indented)), {"words": ("with more blanks",)}),
        (
            "keys",
            of(beside=forgery.written_as(forgery.key_twice)),
            {"exit": REFUSED, "reasons": "", "words": ("is given twice",)},
        ),
        ("long texts", of(manifest=forgery.long_versions), {"words": ("bytes, an export writes at most",)}),
        reasons="rebuild_differs",
    ),
]
