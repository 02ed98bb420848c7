"""`robust-edge-device`: predict, verify, bench and doctor on the device, with numpy and one backend."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import click

from robust_edge_runtimes import __version__
from robust_edge_runtimes.cli.console import (
    OUTPUT_FILE,
    CommandLine,
    Output,
    examples,
    output_options,
    refuse_one_for_both,
)
from robust_edge_runtimes.modes.table import DEVICE_MODES, ModeSettings, chosen_modes, mode_help

BUNDLE = click.Path(path_type=Path)


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robust-edge-device")
def main() -> None:
    """Use a bundle on the device: no training framework needed."""


@main.command()
@click.argument("bundle", type=BUNDLE)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads.")
@output_options
@examples(
    "robust-edge-device predict bundle/ cat.png dog.png",
    "robust-edge-device predict bundle/ frame.npy --json",
)
def predict(bundle: Path, images: Tuple[Path, ...], threads: int, output: Output) -> None:
    """Classify image files (.npy, or pictures where Pillow is installed)."""
    from robust_edge_runtimes.core.images import read_image
    from robust_edge_runtimes.load import load

    with load(bundle, threads=threads) as model:
        shape = tuple(size for size in model.manifest.input.shape[1:] if size is not None)
        pictures = [read_image(path, shape) for path in images]
        answers = [model.classify(picture) for picture in pictures]
    lines = [f"{click.format_filename(path)}  {label}  {p:.3f}" for path, (label, p) in zip(images, answers)]
    rows = [{"image": str(path), "label": label, "probability": p} for path, (label, p) in zip(images, answers)]
    output.result("\n".join(lines), rows)


@main.command()
@click.argument("bundle", type=BUNDLE)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice([mode.name for mode in DEVICE_MODES]),
    help=mode_help(DEVICE_MODES),
)
@click.option("--limit", type=click.IntRange(min=1), help="Most images per mode.  [default: all that are stored]")
@click.option(
    "--queries",
    default=500,
    show_default=True,
    type=click.IntRange(min=1),
    help="Queries per image in blackbox.",
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0, 2**63 - 1),
    help="Of the images drawn and of every attack.",
)
@click.option("--max-clean-drop", default=1.0, show_default=True, help="Points of clean accuracy that may be lost.")
@click.option("--max-robust-drop", default=1.0, show_default=True, help="Points of robust accuracy that may be lost.")
@click.option("--allow", multiple=True, metavar="FLAG", help="A validity flag that shall not fail the gate.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads.")
@click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the verdict to this JSON file.")
@click.option("--junit", type=OUTPUT_FILE, help="Also write it as JUnit XML, for continuous integration.")
@output_options
@click.pass_context
@examples(
    "robust-edge-device verify bundle/",
    "robust-edge-device verify bundle/ --mode replay --mode blackbox --limit 100 -o device.json",
)
def verify(
    context: click.Context,
    bundle: Path,
    modes: Tuple[str, ...],
    limit: Optional[int],
    queries: int,
    seed: int,
    max_clean_drop: float,
    max_robust_drop: float,
    allow: Tuple[str, ...],
    threads: int,
    out: Optional[Path],
    junit: Optional[Path],
    output: Output,
) -> None:
    """Attack the artifact on this device; exit 0 if it held, 1 if not, 4 if the bundle is damaged."""
    import dataclasses

    from robust_edge_runtimes.core.bundle import open_bundle
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.load import load
    from robust_edge_runtimes.present.junit import write_junit
    from robust_edge_runtimes.present.tables import verdict_table
    from robust_edge_runtimes.verdict.judge import judge
    from robust_edge_runtimes.verdict.measurement import Budget
    from robust_edge_runtimes.verdict.subject import subject_of

    refuse_one_for_both(out, junit)
    budget, settings = Budget(max_clean_drop, max_robust_drop, allow), ModeSettings(limit, queries, seed)
    opened = open_bundle(bundle)
    with load(opened, threads=threads) as model:
        subject = subject_of(opened, model, limit=limit, seed=seed)
        chosen = chosen_modes(modes, DEVICE_MODES)
        measurements = [mode.measure(subject, settings, output.progress(mode.name)) for mode in chosen]
        verdict = judge(subject, measurements, budget)
    if out is not None:
        write_json(out, dataclasses.asdict(verdict))
    if junit is not None:
        write_junit(junit, verdict)
    output.result(verdict_table(verdict), verdict)
    context.exit(0 if verdict.passed else 1)


@main.command()
@click.argument("bundles", nargs=-1, required=True, type=BUNDLE)
@click.option("--images", default=100, show_default=True, type=click.IntRange(min=1), help="n of the n-image protocol.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads.")
@click.option("--seconds", default=1.0, show_default=True, help="Least time per bundle and protocol.")
@click.option("--max-p90-ms", type=float, help="Latency budget: exit 1 if p90 of one image is above it.")
@click.option("-o", "--out", type=OUTPUT_FILE, help="Also write the result, samples included.")
@output_options
@click.pass_context
@examples(
    "robust-edge-device bench dense/ sparse/",
    "robust-edge-device bench bundle/ --images 100 -o bench.json",
    "robust-edge-device bench bundle/ --max-p90-ms 5",
)
def bench(
    context: click.Context,
    bundles: Tuple[Path, ...],
    images: int,
    threads: int,
    seconds: float,
    max_p90_ms: Optional[float],
    out: Optional[Path],
    output: Output,
) -> None:
    """Time bundles against each other; the first is the baseline of the speed-up."""
    import dataclasses

    from robust_edge_runtimes.bench import latency
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.tables import bench_table

    contenders = latency.contenders(bundles)
    if all(contender.bundle.manifest.sparsity.keep < 1 for contender in contenders):
        output.note("no dense bundle among these: the speed-up says nothing about sparsity; add one, first")
    result = latency.bench(
        contenders,
        images=images,
        threads=threads,
        seconds=seconds,
        max_p90_ms=max_p90_ms,
        progress=output.progress("timing"),
    )
    if out is not None:
        write_json(out, dataclasses.asdict(result))
    output.result(bench_table(result), result)
    context.exit(0 if result.passed else 1)


@main.command()
@output_options
@examples("robust-edge-device doctor", "robust-edge-device doctor --json")
def doctor(output: Output) -> None:
    """What this machine can run, and what would bring the rest."""
    from robust_edge_runtimes.present.doctor import diagnose, diagnosis_table

    found = diagnose()
    output.result(diagnosis_table(found), found)
