"""`robust-edge export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from robust_edge.cli.format_options import format_options
from robust_edge.cli.types import ALLOW_CODE, PATH, SEED, Numbers, Radius, Shape
from robust_edge.config.export import MOST_STEPS, ExportChoices, GoldenSettings
from robust_edge_runtimes.cli.options import COUNT, examples, lock_outputs
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options

if TYPE_CHECKING:
    from robust_edge_exporters.bundle import Exported
    from robust_edge_exporters.format_option import OptionValue
    from robust_edge_runtimes.core.manifest import LayerForm

OF_RUNS = ("golden", "eps", "steps", "seed", "data_dir", "allow_code")
OF_FILES = ("shape", "mean", "std")
LARGE_BATCH = 256  # images; verify attacks 250 at a time


@click.command()
@click.argument("run", type=PATH, metavar="RUN|MODEL.onnx")
@click.option("--target", required=True, help="Device and runtime; `robust-edge targets` lists the names.")
@click.option("--jetpack", metavar="VERSION", help="JetPack version of a Jetson target: 4.6, 5.1, 6.2 or 7.2.")
@click.option(
    "--precision",
    metavar="P",
    help="fp32, fp16 or int8, if the target supports it.  [default: the target's first]",
)
@click.option("--opset", type=COUNT, help="Write this ONNX opset.  [default: the target's]")
@click.option("--batch", type=COUNT, help="Fixed number of images per call.  [default: any number]")
@format_options
@click.option(
    "--explain-int8",
    is_flag=True,
    help="Measure the error of an int8 export with each layer left in fp32, and list the layers that lose most.",
)
@click.option(
    "--compact/--no-compact",
    default=ExportChoices.compact,
    show_default=True,
    help="Remove channels that have no effect on the outputs before the export.",
)
@click.option(
    "--golden",
    default=GoldenSettings.images,
    show_default=True,
    type=COUNT,
    help="Number of test images to store in the bundle, for `verify`; of large images as many as 1 GiB holds.",
)
@click.option(
    "--eps", type=Radius(), help="Radius of the stored attack.  [default: that of the run; 8/255 where it is 0]"
)
@click.option(
    "--steps",
    default=GoldenSettings.steps,
    show_default=True,
    type=click.IntRange(1, MOST_STEPS),
    help="Gradient steps of the stored attack (PGD).",
)
@click.option("--seed", default=GoldenSettings.seed, show_default=True, type=SEED, help="Seed of the stored attack.")
@click.option("--data-dir", help="Folder of the run's images, if it was moved.")
@click.option("--input-shape", "shape", type=Shape(), help="CxHxW of an ONNX file that leaves it open.")
@click.option("--mean", type=Numbers(), help="Mean that the network of an ONNX file expects.  [default: 0, none]")
@click.option("--std", type=Numbers(), help="Standard deviation that it expects.  [default: 1, none]")
@click.option("--archive", is_flag=True, help="Also write OUT.tar; equal bundles give identical files.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle in -o.")
@click.option("-o", "--out", required=True, type=PATH, help="The bundle to write.")
@ALLOW_CODE
@limit_options
@output_options
@examples(
    "robust-edge export runs/digits-10 --target x86-cpu -o bundles/digits-10",
    "robust-edge export runs/digits-10 --target jetson-gpu --jetpack 4.6 --precision fp16 -o bundles/nano",
    "robust-edge export runs/digits-10 --target x86-cpu-int8 --archive -o bundles/digits-10-int8",
    "robust-edge export model.onnx --target x86-cpu-sparse -o bundles/model",
)
@click.pass_context
def export(
    context: click.Context,
    /,
    run: Path,
    target: str,
    jetpack: str | None,
    precision: str | None,
    opset: int | None,
    batch: int | None,
    explain_int8: bool,
    compact: bool,
    golden: int,
    eps: float | None,
    steps: int,
    seed: int,
    data_dir: str | None,
    shape: tuple[int, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    archive: bool,
    overwrite: bool,
    out: Path,
    allow_code: bool,
    output: Output,
    **options: OptionValue,
) -> None:
    """Export a run as a bundle for a device. It is written only if its outputs match those of the checkpoint.

    The stored images are attacked, which takes long for large networks; a smaller --golden or --steps shortens it.

    An ONNX file is exported without images: the bundle stores noise, and can be timed but not verified.
    """
    from robust_edge.export import export_run
    from robust_edge.importing.run import ImportSettings
    from robust_edge.importing.without_images import export_file
    from robust_edge.run.directory import open_run
    from robust_edge_exporters.archive import archive_path, write_archive
    from robust_edge_exporters.target import target_named

    chosen = target_named(target, jetpack)
    if opset is not None:
        chosen = chosen.with_opset(opset)
    lock_outputs(out)
    tar = archive_path(out, overwrite=overwrite) if archive else None
    given = {name: value for name, value in options.items() if value is not None}
    choices = ExportChoices(precision=precision, batch=batch, compact=compact, explain_int8=explain_int8, options=given)
    if run.suffix.lower() == ".onnx":
        _refuse_given(context, OF_RUNS, f"{run} comes without images; import it with images (robust-edge import)")
        settings = ImportSettings(shape=shape, mean=mean or ImportSettings.mean, std=std or ImportSettings.std)
        exported, changes = export_file(run, chosen, out, settings, choices, overwrite=overwrite)
        for change in changes:
            output.note(f"note: {change}")
    else:
        _refuse_given(context, OF_FILES, f"{run} is a run, which has its own")
        opened = open_run(run, allow_code=allow_code)
        exported = export_run(
            opened,
            chosen,
            out,
            golden=GoldenSettings(images=golden, eps=eps, steps=steps, seed=seed),
            choices=choices,
            data_dir=data_dir,
            overwrite=overwrite,
            progress=output.progress("attacking the golden images"),
        )
        for warning in opened.checkpoint().warnings:
            output.note(f"note: {warning}")
    if tar is not None:
        write_archive(out, tar)
    _say(exported, chosen.limits, tar, output)


def _say(exported: Exported, limits: tuple[str, ...], tar: Path | None, output: Output) -> None:
    """Print the written bundle: what each layer keeps and how it is stored, the notes and the result."""
    import dataclasses

    from robust_edge.cli.quantisation import quantisation_in_words, ranges_in_words
    from robust_edge_runtimes.core.manifest import NO_IMAGES
    from robust_edge_runtimes.verdict.checks import chance_level
    from robust_edge_runtimes.verdict.statistic import MIN_IMAGES

    manifest = exported.manifest
    for layer in manifest.sparsity.layers:
        output.detail(f"{layer.name}: {layer.nonzero} of {layer.weights} weights non-zero")
    for form in manifest.layers:
        output.detail(f"{form.name}: {_form(form)}")
    for line in ranges_in_words(exported.quantisation):
        output.detail(line)
    for limit in (*limits, *manifest.notes):
        output.note(f"note: {limit}")
    few = manifest.expected.images
    if few < MIN_IMAGES and manifest.source.dataset != NO_IMAGES:
        output.note(f"note: verify cannot decide with {few} stored images, it needs {MIN_IMAGES}; raise --golden")
    expected = manifest.expected
    if expected.robust_accuracy <= chance_level(len(manifest.classes)) and manifest.source.dataset != NO_IMAGES:
        output.note(
            f"note: verify cannot pass this bundle: under attack with eps {expected.attack.eps:.4g} the checkpoint is "
            f"right on {100 * expected.robust_accuracy:.1f}% of the stored images, no more than by chance, so that no "
            "artifact could be worse; export with a smaller --eps"
        )
    batch = manifest.input.shape[0]
    if batch is not None and batch > LARGE_BATCH and manifest.source.dataset != NO_IMAGES:
        output.note(
            f"note: verify calls this file and its twin with whole batches, so one image costs as much as {batch}; "
            f"a --batch of at most {LARGE_BATCH} is verified faster"
        )
    archived = {} if tar is None else {"archive": str(tar)}
    text = "\n".join([_summary(exported), *quantisation_in_words(exported.quantisation)])
    text += f"\n{tar}: the same bundle as one file" if tar else ""
    output.result(text, {**dataclasses.asdict(exported), "manifest": manifest.to_json(), **archived})


def _refuse_given(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """Raise InputError if one of these options stands on the command line."""
    from robust_edge_runtimes.core.errors import InputError

    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise InputError(f"{max(param.opts, key=len)} does not apply: {why}")


def _summary(exported: Exported) -> str:
    """The written bundle: its sparsity, its size, and its largest logit error against what it was made from."""
    from robust_edge_runtimes.core.manifest import NO_IMAGES

    manifest, parity = exported.manifest, exported.parity
    artifact, counts, size = manifest.artifact, manifest.sparsity, manifest.size
    assert size is not None
    noise = manifest.source.dataset == NO_IMAGES
    source, images = ("file", "noise images") if noise else ("checkpoint", "golden images")
    forms = f"\n  {_forms(manifest.layers)}" if manifest.layers else ""
    weights = "" if size.weights is None else f", {size.weights / 1e3:.0f} kB of them weights"
    return (
        f"{exported.path}: {artifact.file} for {manifest.target} in {artifact.precision}\n"
        f"  {counts.nonzero} of {counts.weights} prunable weights non-zero ({100 * counts.keep:.2f}%){forms}\n"
        f"  {size.artifact / 1e3:.0f} kB{weights}, {size.compressed / 1e3:.0f} kB compressed; the weights alone "
        f"as dense fp32: {size.dense / 1e3:.0f} kB\n"
        f"  logits within {parity.max_logit_error:.1g} of the {source}, classes equal on "
        f"{100 * parity.argmax_agreement:.2f}% of the {images}"
    )


def _form(layer: LayerForm) -> str:
    """The form in which the artifact stores one layer, with its density."""
    counted = "" if layer.macs is None else f", {layer.macs} of {layer.dense_macs} multiply-adds left"
    return f"{layer.form} at {100 * layer.nonzero / layer.weights:.1f}% of its weights{counted}"


def _forms(layers: tuple[LayerForm, ...]) -> str:
    """The number of layers in each form, in one line."""
    names = [layer.form for layer in layers]
    counts = ", ".join(
        f"{names.count(name)} {name}" for name in sorted(set(names), key=lambda name: (-names.count(name), name))
    )
    if any(layer.macs is None for layer in layers):
        return f"{len(layers)} layers: {counts}"
    left, dense = (sum(getattr(layer, name) or 0 for layer in layers) for name in ("macs", "dense_macs"))
    return (
        f"kernels of {len(layers)} layers: {counts}; {left} of {dense} multiply-adds left ({100 * left / dense:.1f}%)"
    )
