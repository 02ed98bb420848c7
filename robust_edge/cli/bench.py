"""`robust-edge bench`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.cli.types import PATH, Shape
from robust_edge_runtimes.cli.bench import timing_options
from robust_edge_runtimes.cli.options import examples, lock_outputs
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=PATH, metavar="BUNDLE|MODEL.onnx...")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Target to export an ONNX file to and time; repeatable.  [default: the sparse engine of this CPU]",
)
@click.option("--input-shape", "shape", type=Shape(), help="CxHxW of an ONNX file that leaves it open.")
@timing_options
@limit_options
@output_options
@examples(
    "robust-edge bench bundles/dense bundles/digits-10",
    "robust-edge bench bundles/digits-10 --threads 2 -o bench.json",
    "robust-edge bench bundles/digits-10 --max-p90-ms 5",
    "robust-edge bench model.onnx --target x86-cpu-csr --target x86-cpu-sparse",
)
@click.pass_context
def bench(
    context: click.Context,
    bundles: tuple[Path, ...],
    targets: tuple[str, ...],
    shape: tuple[int, ...] | None,
    images: int,
    threads: int,
    seconds: float,
    max_p90_ms: float | None,
    out: Path | None,
    output: Output,
) -> None:
    """Time bundles, interleaved with a dense baseline: one image in memory, and n images including reading them.

    The baseline is the first dense bundle that is given; if there is none, a dense copy of the first bundle. The
    latency budget applies to every bundle that is given.

    An ONNX file needs no images: it is timed on ONNX Runtime as it is, and in every target that it is exported to.
    """
    import contextlib
    import dataclasses
    import tempfile

    from robust_edge_exporters.dense_baseline import with_dense_baseline
    from robust_edge_runtimes.bench import latency
    from robust_edge_runtimes.core.errors import InputError
    from robust_edge_runtimes.core.files import write_json
    from robust_edge_runtimes.present.bench import bench_table

    lock_outputs(out)
    files = [path for path in bundles if path.suffix.lower() == ".onnx"]
    if (targets or shape) and not files:
        raise InputError("--target and --input-shape are for ONNX files; a bundle has its own")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = [made for path in bundles for made in (_made(path, folder, targets, shape, output) or [path])]
        contenders, baseline = stack.enter_context(with_dense_baseline(latency.contenders(paths)))
        result = latency.bench(
            contenders,
            baseline=baseline,
            images=images,
            threads=threads,
            seconds=seconds,
            max_p90_ms=max_p90_ms,
            progress=output.progress("timing"),
        )
    text = bench_table(result)
    with output.kept(text, result):
        if out is not None:
            write_json(out, dataclasses.asdict(result))
    output.verdict(text, result, context, 0 if result.passed else 1)


def _made(
    path: Path, folder: Path, targets: tuple[str, ...], shape: tuple[int, ...] | None, output: Output
) -> list[Path]:
    """Bundles of an ONNX file in a temporary folder: as it is, and for each target; none of anything else."""
    from robust_edge.config.export import ExportChoices
    from robust_edge.importing.run import ImportSettings
    from robust_edge.importing.without_images import bundle_of_file, export_file
    from robust_edge_exporters.target import target_named
    from robust_edge_runtimes.core.errors import RobustEdgeError

    if path.suffix.lower() != ".onnx":
        return []
    made = [folder / path.name]
    bundle_of_file(path, made[0], shape)
    for name in targets or _compiled_here():
        output.detail(f"exporting {path.name} to {name}")
        try:
            bundle = folder / f"{path.name} for {name}"
            export_file(path, target_named(name), bundle, ImportSettings(shape=shape), ExportChoices())
            made.append(bundle)
        except RobustEdgeError as cause:
            if targets:
                raise
            output.note(f"note: {path.name} is not timed in {name}: {cause}")
    return made


def _compiled_here() -> tuple[str, ...]:
    """The targets whose code is compiled for this machine's CPU."""
    import platform

    from robust_edge_exporters.target import targets

    return tuple(row.name for row in targets().values() if platform.machine() in row.machines)
