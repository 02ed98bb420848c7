"""Writes what the docs list of the code: tables between markers, the page of settings, the schema of verify.json.

python docs/generate.py            # as `make docs` does; a test holds that the committed files are current
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robust_edge.attacks.table import ATTACKS, OWN, attack_class
from robust_edge.config.reference import default_text, settings_page
from robust_edge.data.table import DATASETS
from robust_edge.models.table import ARCHITECTURES, ZOOS
from robust_edge.plugins import OWN_FUNCTION
from robust_edge.pruning.schemes import SCHEMES, scheme_class
from robust_edge.settings.setting import settings_of
from robust_edge.verification.modes.table import MODES
from robust_edge_exporters.schema import verdict_schema
from robust_edge_runtimes.attacks.threat import SYMBOLS
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.flags import EVALUATE, VALIDITY_FLAGS, VERIFY

DOCS = Path(__file__).parent
sys.path.append(str(DOCS.parent / "benchmarks"))

import sparse_engine_tables  # noqa: E402

BLOCK = re.compile(r"(<!-- generated: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def modes() -> str:
    """The verify modes."""
    rows = [
        (f"`{mode.name}`", mode.help, mode.needs or "–", mode.default.value, "yes" if mode in DEVICE_MODES else "no")
        for mode in MODES
    ]
    return _table(("mode", "attack", "needs, beside the bundle", "by default", "on the device"), rows)


def flags(command: str) -> str:
    """The validity flags that a command raises."""
    rows = [(f"`{flag.name}`", flag.meaning) for flag in VALIDITY_FLAGS if command in flag.raised_by]
    return _table(("flag", "raised when"), rows)


def attacks() -> str:
    """The attacks that `--attack` names."""
    rows = []
    for name, row in ATTACKS.items():
        cls = attack_class(name)
        settings = ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls))
        norms = ", ".join(SYMBOLS[norm] for norm in cls.norms)
        rows.append((f"`{name}`", row.summary, settings or "none", norms))
    rows.append((f"`{OWN}`", "an attack of your own", "its fields", "its own"))
    return _table(("`--attack`", "what it is", "settings", "norms"), rows)


def attack_settings() -> str:
    """The settings of the attacks; one row for all attacks that declare a setting in the same way."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name in ATTACKS:
        cls = attack_class(name)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for setting, declaration in settings_of(cls).items():
            key = (f"`{setting}`", default_text(fields[setting]), declaration.help)
            rows.setdefault(key, []).append(f"`{name}`")
    listed = [(name, ", ".join(names), default, meaning) for (name, default, meaning), names in rows.items()]
    return _table(("setting", "attacks", "default", "meaning"), listed)


def choices() -> str:
    """The names of data sets, networks and schemes, with their summaries."""
    tables = {
        "--dataset": (DATASETS, OWN_FUNCTION),
        "--arch": (ARCHITECTURES, OWN_FUNCTION),
        "--scheme": (SCHEMES, OWN),
    }
    libraries = ", ".join(f"`{name}/NAME` ({row.summary})" for name, row in ZOOS.items())
    lines = []
    for option, (table, own) in tables.items():
        names = [f"`{name}`" + (f" ({row.summary})" if row.summary else "") for name, row in table.items()]
        more = [libraries] if table is ARCHITECTURES else []
        lines.append(f"- `{option}`: {', '.join([*names, *more])}, or your own as `{own}`")
    return "".join(textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False) + "\n" for line in lines)


def schemes() -> str:
    """The pruning schemes: the first paragraph of the class is the constraint."""
    rows = []
    for name in SCHEMES:
        cls = scheme_class(name)
        constraint = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
        settings = ", ".join(f"`{setting}`" for setting in settings_of(cls))
        rows.append((f"`{name}`", constraint, settings or "none"))
    rows.append((f"`{OWN}`", "a scheme of your own", "its fields"))
    return _table(("`--scheme`", "constraint", "settings (`pruning.NAME`)"), rows)


def networks(file: str) -> str:
    """What a benchmark of networks found, one row per network and size."""
    found = json.loads((DOCS.parent / f"benchmarks/results/{file}.json").read_text("utf-8"))
    targets = list(dict.fromkeys(name for row in found["rows"] for name in row.get("targets", ())))
    rows = [(f"`{row['network']}`", str(row["size"]), *_outcomes(row, targets)) for row in found["rows"]]
    return _table(("network", "pixels", *(f"`{name}`" for name in targets)), rows)


def _outcomes(row: dict[str, Any], targets: list[str]) -> list[str]:
    """What the commands said of one network, target by target; once, if it was refused in all of them."""
    if "refused" in row:
        return [f"refused: {row['refused'].partition(';')[0]}", *[""] * (len(targets) - 1)]
    return [_outcome(row, name) for name in targets]


def _outcome(row: dict[str, Any], target: str) -> str:
    """What the commands said of one network in one target."""
    said = row.get("targets", {}).get(target)
    if said is None:
        return "not run"
    if said["check"] != "works":
        return f"check: {said['check'].partition(';')[0]}"
    problem = said.get("export") or said.get("bench")
    if problem:
        return f"refused: {problem.partition(';')[0]}"
    reasons = ", ".join(sorted({reason.partition(":")[0] for reason in said.get("reasons", ())}))
    return f"{said['verify']}{f' ({reasons})' if reasons else ''}, {said['p50_ms']:.3g} ms"


def fastest() -> str:
    """Milliseconds of dense and sparse engines at 224x224 pixels with a tenth of the weights."""
    found = json.loads((DOCS.parent / "benchmarks/results/sparse_engine_int8.json").read_text("utf-8"))
    engines = ("onnxruntime fp32", "onnxruntime int8", "sparse fp32", "sparse int8")
    rows = [
        (cell["network"].removesuffix("-224"), *(f"{cell['ms'][name]:.1f}" for name in engines))
        for cell in found["cells"]
        if cell["keep"] == 0.1 and cell["network"].endswith("-224")
    ]
    names = ("ONNX Runtime fp32", "ONNX Runtime int8", "sparse engine fp32", "sparse engine int8")
    return _table(("ms for one image", *names), rows)


def engine_speed() -> str:
    """The tables of the sparse engine: speed, where it is level with dense engines, and sizes."""
    report = json.loads((DOCS.parent / "benchmarks/results/sparse_engine.json").read_text("utf-8"))
    speed, level, size = (
        make(report)
        for make in (sparse_engine_tables.tables, sparse_engine_tables.break_even, sparse_engine_tables.size_table)
    )
    return f"{speed}\nThe engine is as fast as the dense engines at:\n\n{level}\n{size}"


def engine_tenth() -> str:
    """The sparse engine and dense ones with a tenth of the weights, one thread, one image."""
    report = json.loads((DOCS.parent / "benchmarks/results/sparse_engine.json").read_text("utf-8"))
    engines = ("onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino int8", "sparse engine")
    rows = [
        (cell["network"], *(f"{row['speedup'][name]:.2f}" for name in engines), f"{row['ms'][engines[-1]]:.2f}")
        for cell in report["cells"]
        for row in cell["results"]
        if (cell["keep"], cell["scope"], row["threads"], row["images"]) == (0.1, "layer", 1, 1)
    ]
    return _table(("network", *engines, "ms"), rows)


def engine_layers() -> str:
    """Each operator of some networks beside the limits of the core, with a tenth of the weights."""
    report = json.loads((DOCS.parent / "benchmarks/results/sparse_engine.json").read_text("utf-8"))
    names = ("resnet18-224", "resnet50-224", "resnet34")
    return "\n".join(f"### {name}\n\n{sparse_engine_tables.layer_table(report, name, 0.1)}" for name in names)


def int8_speed() -> str:
    """What the benchmark of the int8 engine found, one row per network and fraction kept."""
    found = json.loads((DOCS.parent / "benchmarks/results/sparse_engine_int8.json").read_text("utf-8"))
    rows = []
    for cell in found["cells"]:
        ms, memory = cell["ms"], cell["memory_bytes"]
        dense, ours = ms["onnxruntime int8"], ms["sparse int8"]
        plain = ms.get("sparse int8 without VNNI")
        rows.append(
            (
                cell["network"],
                f"{cell['keep']:.0%}",
                *(f"{ms[name]:.2f}" for name in ("onnxruntime fp32", "onnxruntime int8", "sparse fp32", "sparse int8")),
                f"{plain:.2f}" if plain else "",
                f"{dense / ours:.1f}",
                f"{dense / plain:.1f}" if plain else "",
                f"{ms['sparse fp32'] / ours:.1f}",
                f"{cell['bytes_per_nonzero']:.2f}",
                f"{memory['sparse int8'] / memory['sparse fp32']:.2f}",
            )
        )
    engines = ("ONNX Runtime fp32", "ONNX Runtime int8", "engine fp32", "engine int8", "engine int8 without VNNI")
    ratios = ("ONNX Runtime int8 / engine int8", "/ without VNNI", "engine fp32 / engine int8")
    table = _table(
        ("network", "kept", *(f"{name}, ms" for name in engines), *ratios, "bytes per non-zero", "memory of fp32"), rows
    )
    made_on = {_cpu_kind(cell["environment"]["instructions"]) for cell in found["cells"]}
    missing = [kind for kind in CPU_KINDS if kind not in made_on]
    return table + (f"\nMissing, as no such machine was at hand: {', '.join(missing)}.\n" if missing else "")


def int8_accuracy() -> str:
    """What the benchmark of blocks and 8 bits found, one row per data set, network and seed."""
    found = json.loads((DOCS.parent / "benchmarks/results/int8_accuracy.json").read_text("utf-8"))
    rows = [
        (
            row["data"],
            row["network"],
            str(row["seed"]),
            f"{row['nonzero'] / row['weights']:.0%}",
            f"{row['eps']:.3g}",
            *(f"{100 * row[name] / row['images']:.1f}" for name in ("clean", "pgd", "autoattack")),
            f"{row['weights_bytes'] / 1000:.1f}",
            f"{row['ms']:.4f}" if row["ms"] else "",
        )
        for row in found["rows"]
    ]
    attacked = ("clean, %", f"PGD-{found['steps']}, %", "AutoAttack, %")
    return _table(("data", "network", "seed", "kept", "eps", *attacked, "kB", "ms"), rows)


CPU_KINDS = ("x86 with VNNI", "x86 without VNNI", "ARM")


def _cpu_kind(instructions: list[str]) -> str:
    """The row of `CPU_KINDS` of a CPU with these instructions."""
    if "avx2" not in instructions:
        return "ARM"
    return CPU_KINDS[0 if any(name.endswith("vnni") for name in instructions) else 1]


def false_alarms() -> str:
    """How often good artifacts passed, stayed undecided and failed, one row per network and target."""
    found = json.loads((DOCS.parent / "benchmarks/results/false_alarms.json").read_text("utf-8"))
    outcomes = ("pass", "undecided", "fail")
    rows = [
        (
            row["network"],
            f"`{row['target']}`",
            str(row["limit"] or "as needed"),
            *(str(row["outcomes"].get(outcome, 0)) for outcome in outcomes),
            f"{row['mean_worst_robust_drop']:.2f}",
            f"{row['largest']:.2f}",
        )
        for row in sorted(found["rows"], key=lambda row: row["network"])
    ]
    return _table(
        ("network", "target", "images", *(name.upper() for name in outcomes), "mean drop", "largest drop"), rows
    )


def gate_power() -> str:
    """How often the gate passes, fails and stays undecided, in a table for each number of images."""
    found = json.loads((DOCS.parent / "benchmarks/results/gate_power.json").read_text("utf-8"))
    tables = []
    for images in dict.fromkeys(cell["images"] for cell in found["cells"]):
        rows: dict[str, list[str]] = {}
        drops = []
        for cell in found["cells"]:
            if cell["images"] == images:
                shares = " / ".join(f"{100 * cell[outcome]:.3g}" for outcome in ("pass", "fail", "undecided"))
                rows.setdefault(f"{cell['churn']:g}%", []).append(f"{shares}, {cell['drawn']:.0f}")
                drops.append(f"drop {cell['drop']:g}")
        header = ("churn", *dict.fromkeys(drops))
        table = _table(header, [(churn, *cells) for churn, cells in rows.items()])
        tables.append(f"\nAt most {images:,} images:\n\n{table}")
    return "".join(tables) + "\n"


def tampered_kinds() -> str:
    """What `verify` said of every kind of tampered bundle, one row per kind."""
    found = json.loads((DOCS.parent / "benchmarks/results/tampered_kinds.json").read_text("utf-8"))
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        kinds.setdefault(row["row"], []).append(row)
    rows = []
    for kind, forms in kinds.items():
        exits = ", ".join(str(code) for code in sorted({form["exit"] for form in forms}))
        always = [name for name in forms[0]["reasons"] if all(name in form["reasons"] for form in forms)]
        some = dict.fromkeys(name for form in forms for name in form["reasons"] if name not in always)
        names = [", ".join(f"`{name}`" for name in group) or "–" for group in (always, some)]
        rows.append((kind, f"{sum(form['caught'] for form in forms)} of {len(forms)}", exits, *names))
    honest = [
        (f"the honest bundle for `{row['target']}`", "", str(row["exit"]), row["outcome"].upper(), "–")
        for row in found["honest"]
    ]
    return _table(("tampered kind", "forms caught", "exit", "reasons", "in some forms"), [*rows, *honest])


def recipe() -> str:
    """What preset `strong` and its variants reach in the ablations: differences to it, on the seeds that both have."""
    variants: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _trial_rows("cifar_trial_slim_ablations"):
        name, seed = row["name"].rsplit("-seed", 1)
        variants.setdefault(name, {})[seed] = row
    full = variants.get("all-parts", {})
    rows = []
    for name, seeds in variants.items():
        both = sorted(seeds.keys() & full.keys())
        gains = [100 * (seeds[seed]["robust"]["value"] - full[seed]["robust"]["value"]) for seed in both]
        rows.append(
            (
                f"`{name}`",
                str(next(iter(seeds.values()))["epochs"]),
                *(
                    ", ".join(f"{100 * seeds[seed][key]['value']:.1f}" for seed in sorted(seeds))
                    for key in ("clean", "robust")
                ),
                f"{sum(gains) / len(gains):+.1f}" if gains and name != "all-parts" else "–",
                ", ".join(f"{seeds[seed]['core_hours']['training']:.2f}" for seed in sorted(seeds)),
            )
        )
    return _table(("variant", "epochs", "clean, %", "PGD-50, %", "to `all-parts`", "core hours"), rows)


def _trial_rows(name: str) -> list[dict[str, Any]]:
    """The networks of a result of the trial that are attacked."""
    file = DOCS.parent / f"benchmarks/results/{name}.json"
    found = json.loads(file.read_text("utf-8"))["runs"] if file.is_file() else []
    return [row for row in found if "robust" in row]


BLOCKS: dict[str, Callable[[], str]] = {
    "modes": modes,
    "flags of verify": lambda: flags(VERIFY),
    "flags of evaluate": lambda: flags(EVALUATE),
    "attacks": attacks,
    "attack settings": attack_settings,
    "choices": choices,
    "schemes": schemes,
    "networks": lambda: networks("networks"),
    "networks of the tests": lambda: networks("networks_of_tests"),
    "onnx files": lambda: networks("onnx_files"),
    "fastest": fastest,
    "engine speed": engine_speed,
    "engine tenth": engine_tenth,
    "engine layers": engine_layers,
    "int8 speed": int8_speed,
    "int8 accuracy": int8_accuracy,
    "recipe": recipe,
    "false alarms": false_alarms,
    "gate power": gate_power,
    "tampered kinds": tampered_kinds,
}


def pages() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    found = {
        DOCS / "settings.md": settings_page(),
        DOCS / "schema/verify.schema.json": json.dumps(verdict_schema(), indent=2) + "\n",
    }
    for page in (*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"):
        text = page.read_text("utf-8")
        if BLOCK.search(text):
            found[page] = BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)
    return found


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = tuple(header)
    lines = [cells, *map(tuple, rows)]
    text = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([text[0], "|" + "---|" * len(cells) + "\n", *text[1:]])


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
