"""The tables of the docs that show results of benchmarks, from the committed files of these."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scipy import stats

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import sparse_engine_tables  # noqa: E402


def result(name: str) -> Any:
    """The result of a benchmark."""
    return json.loads((BENCHMARKS / f"results/{name}.json").read_text("utf-8"))


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table, with a bar at both ends of every line."""
    cells = tuple(header)
    lines = [cells, *map(tuple, rows)]
    text = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([text[0], "|" + "---|" * len(cells) + "\n", *text[1:]])


def networks(file: str) -> str:
    """What a benchmark of networks found, one row per network and size."""
    found = result(file)
    targets = list(dict.fromkeys(name for row in found["rows"] for name in row.get("targets", ())))
    rows = [(f"`{row['network']}`", str(row["size"]), *_outcomes(row, targets)) for row in found["rows"]]
    return markdown(("network", "pixels", *(f"`{name}`" for name in targets)), rows)


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
    found = result("sparse_engine_int8")
    engines = ("onnxruntime fp32", "onnxruntime int8", "sparse fp32", "sparse int8")
    rows = [
        (cell["network"].removesuffix("-224"), *(f"{cell['ms'][name]:.1f}" for name in engines))
        for cell in found["cells"]
        if cell["keep"] == 0.1 and cell["network"].endswith("-224")
    ]
    names = ("ONNX Runtime fp32", "ONNX Runtime int8", "sparse engine fp32", "sparse engine int8")
    return markdown(("ms for one image", *names), rows)


def engine_speed() -> str:
    """The tables of the sparse engine: speed, where it is level with dense engines, and sizes."""
    report = result("sparse_engine")
    speed, level, size = (
        make(report)
        for make in (sparse_engine_tables.tables, sparse_engine_tables.break_even, sparse_engine_tables.size_table)
    )
    return f"{speed}\nThe engine is as fast as the dense engines at:\n\n{level}\n{size}"


def engine_tenth() -> str:
    """The sparse engine and dense ones with a tenth of the weights, one thread, one image."""
    report = result("sparse_engine")
    engines = ("onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino int8", "sparse engine")
    rows = [
        (cell["network"], *(f"{row['speedup'][name]:.2f}" for name in engines), f"{row['ms'][engines[-1]]:.2f}")
        for cell in report["cells"]
        for row in cell["results"]
        if (cell["keep"], cell["scope"], row["threads"], row["images"]) == (0.1, "layer", 1, 1)
    ]
    return markdown(("network", *engines, "ms"), rows)


def engine_layers() -> str:
    """Each operator of some networks beside the limits of the core, with a tenth of the weights."""
    report = result("sparse_engine")
    names = ("resnet18-224", "resnet50-224", "mobilenet_v2-224", "resnet34")
    return "\n".join(f"## {name}\n\n{sparse_engine_tables.layer_table(report, name, 0.1)}" for name in names)


def int8_speed() -> str:
    """What the benchmark of the int8 engine found, one row per network and fraction kept."""
    found = result("sparse_engine_int8")
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
    table = markdown(
        ("network", "kept", *(f"{name}, ms" for name in engines), *ratios, "bytes per non-zero", "memory of fp32"), rows
    )
    made_on = {_cpu_kind(cell["environment"]["instructions"]) for cell in found["cells"]}
    missing = [kind for kind in CPU_KINDS if kind not in made_on]
    return table + (f"\nMissing, as no such machine was at hand: {', '.join(missing)}.\n" if missing else "")


def int8_accuracy() -> str:
    """What the benchmark of blocks and 8 bits found, one row per data set, network and seed."""
    found = result("int8_accuracy")
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
    return markdown(("data", "network", "seed", "kept", "eps", *attacked, "kB", "ms"), rows)


CPU_KINDS = ("x86 with VNNI", "x86 without VNNI", "ARM")


def _cpu_kind(instructions: list[str]) -> str:
    """The row of `CPU_KINDS` of a CPU with these instructions."""
    if "avx2" not in instructions:
        return "ARM"
    return CPU_KINDS[0 if any(name.endswith("vnni") for name in instructions) else 1]


def false_alarms() -> str:
    """How often good artifacts passed, stayed undecided and failed, one row per network and target."""
    found = result("false_alarms")
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
    return markdown(
        ("network", "target", "images", *(name.upper() for name in outcomes), "mean drop", "largest drop"), rows
    )


def gate_power() -> str:
    """How often the gate passes, fails and stays undecided, in a table for each number of images."""
    found = result("gate_power")
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
        table = markdown(header, [(churn, *cells) for churn, cells in rows.items()])
        tables.append(f"\nAt most {images:,} images:\n\n{table}")
    return "".join(tables) + "\n"


def tampered_kinds() -> str:
    """What `verify` said of every kind of tampered bundle, one row per kind."""
    found = result("tampered_kinds")
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
    return markdown(("tampered kind", "forms caught", "exit", "reasons", "in some forms"), [*rows, *honest])


def training_steps() -> str:
    """How many times as fast as release 0.1's our steps of training are, one row per network and number of steps."""
    rows = []
    for name in ("training", "training_two_steps"):
        for network in result(name)["networks"]:
            loops = network["loops"]
            images = f"{loops['ours']['images_per_second']:.1f}"
            rows.append((network["network"], str(network["steps"]), images, *_ratios(loops)))
    header = ("network", "steps of PGD", "images/s", "ours, attacked and clean images", "attacked images only")
    return markdown(header, rows)


def training_profile() -> str:
    """The share of each of torch's operators in our step of training, where it is 2% of the time of some network."""
    networks = result("training_profile")["networks"]
    shares = {network["network"]: network["profile"]["shares"] for network in networks}
    operators = list(dict.fromkeys(name for found in shares.values() for name in found))
    rest = ["other operators", "outside of operators"]
    shown = [name for name in operators if name not in rest and max(s.get(name, 0) for s in shares.values()) >= 0.02]
    rows = [
        (f"`{name.removeprefix('aten::')}`", *(_percent(found.get(name)) for found in shares.values()))
        for name in shown
    ]
    others = [sum(v for name, v in found.items() if name not in (*shown, rest[1])) for found in shares.values()]
    rows.append(("other operators", *map(_percent, others)))
    rows.append(("outside of operators: Python", *(_percent(found[rest[1]]) for found in shares.values())))
    return markdown(("operator", *(f"{name}, %" for name in shares)), rows)


def _percent(share: float | None) -> str:
    """A share of the time in percent; none was written if it is below 0.5%."""
    return "< 0.5" if share is None else f"{100 * share:.1f}"


def _ratios(loops: dict[str, Any]) -> tuple[str, str]:
    """The median ratio of both loops to the older tree's, and the range over the rounds."""
    both = (loops[name] for name in ("ours", "attacked only"))
    ours, attacked = (f"{x['ratio']:.2f} ({x['ratio_range'][0]:.2f} to {x['ratio_range'][1]:.2f})" for x in both)
    return ours, attacked


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
                _mean(gains) if gains and name != "all-parts" else "–",
                ", ".join(f"{seeds[seed]['core_hours']['training']:.2f}" for seed in sorted(seeds)),
                ", ".join(f"{seeds[seed]['seconds'] / 60:.0f}" for seed in sorted(seeds)),
            )
        )
    header = ("variant", "epochs", "clean, %", "PGD-50, %", "to `all-parts`", "core hours", "minutes")
    return markdown(header, rows)


def trial() -> str:
    """The networks of the trial on two cores, with 95% intervals, and their hours; those that were trained."""
    rows, spent = [], 0.0
    for row in result("cifar_trial_slim")["runs"]:
        if "keep" not in row:
            continue
        hours = row["core_hours"]
        spent += sum(hours.values())
        rows.append(
            (
                f"`{row['name']}`",
                f"{100 * row['keep']:.0f}%",
                *(_interval(row[key]) if key in row else "–" for key in ("clean", "robust")),
                str(row["epochs"]),
                " + ".join(f"{hours[part]:.1f}" for part in ("training", "attack") if part in hours),
                f"{row['bytes'] / 1e6:.2f}",
            )
        )
    table = markdown(("network", "kept", "clean, %", "AutoAttack, %", "epochs", "core hours", "MB"), rows)
    return f"{table}\nAll of them together took {spent:.1f} core hours.\n"


def _interval(accuracy: dict[str, Any]) -> str:
    """An accuracy with its interval, in percent."""
    value, low, high = (100 * accuracy[key] for key in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _mean(gains: list[float]) -> str:
    """The mean over the seeds; of several seeds with its 95% interval by Student's t."""
    mean = f"{statistics.fmean(gains):+.1f}"
    if len(gains) < 2:
        return mean
    half = float(stats.t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / len(gains) ** 0.5
    return f"{mean} ± {half:.1f}"


def _trial_rows(name: str) -> list[dict[str, Any]]:
    """The networks of a result of the trial that are attacked."""
    return [row for row in result(name)["runs"] if "robust" in row]


MEASURED: dict[str, Callable[[], str]] = {
    "networks": lambda: networks("networks"),
    "networks of the tests": lambda: networks("networks_of_tests"),
    "onnx files": lambda: networks("onnx_files"),
    "fastest": fastest,
    "engine speed": engine_speed,
    "engine tenth": engine_tenth,
    "engine layers": engine_layers,
    "int8 speed": int8_speed,
    "int8 accuracy": int8_accuracy,
    "trial": trial,
    "recipe": recipe,
    "training steps": training_steps,
    "training profile": training_profile,
    "false alarms": false_alarms,
    "gate power": gate_power,
    "tampered kinds": tampered_kinds,
}
"""The functions by the names of their blocks."""
