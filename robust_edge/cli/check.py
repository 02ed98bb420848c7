"""`robust-edge check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from robust_edge.cli.types import ALLOW_CODE, PATH, Shape
from robust_edge_runtimes.cli.options import examples
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options

if TYPE_CHECKING:
    from robust_edge.checking.check import NetworkCheck
    from robust_edge.models import ModelSpec, Normalized

WORKS_IN_8_BITS = "works; whether 8 bits are enough for its weights is judged at export, on images"


@click.command()
@click.argument("run", type=PATH, required=False, metavar="RUN|MODEL.onnx")
@click.option("--arch", help="Architecture to check instead of a run, as for `compress`.")
@click.option("--dataset", default="digits", show_default=True, help="Data set that determines shape and classes.")
@click.option("--data-dir", help="Folder of the data set.")
@click.option(
    "--input-shape",
    "shape",
    type=Shape(),
    help="CxHxW of one image, such as 3x224x224, without a data set, or of an ONNX file that leaves it open.",
)
@click.option(
    "--classes",
    default=10,
    show_default=True,
    type=click.IntRange(2, 1_000_000),
    help="Number of classes, with --input-shape.",
)
@click.option(
    "--target",
    "names",
    multiple=True,
    help="Target to check, or several after commas; repeatable.  [default: those of x86 CPUs]",
)
@click.option("--jetpack", metavar="VERSION", help="JetPack version of Jetson targets: 4.6, 5.1, 6.2 or 7.2.")
@ALLOW_CODE
@limit_options
@output_options
@click.pass_context
@examples(
    "robust-edge check --arch my_pkg.models:build --dataset folder --data-dir data/cats",
    "robust-edge check --arch mobilenet_v2 --input-shape 3x224x224 --classes 1000 --target jetson-gpu --jetpack 4.6",
    "robust-edge check runs/digits-10 --target x86-cpu-sparse",
    "robust-edge check model.onnx --input-shape 3x224x224",
)
def check(
    context: click.Context,
    run: Path | None,
    arch: str | None,
    dataset: str,
    data_dir: str | None,
    shape: tuple[int, ...] | None,
    classes: int,
    names: tuple[str, ...],
    jetpack: str | None,
    allow_code: bool,
    output: Output,
) -> None:
    """Report for each target whether a network can be exported to it, and if not, why. Nothing is trained.

    Whether 8 bits are enough for the network's weights is judged by `export`, on images. Of an ONNX file it says what
    `export` does with the file alone.

    Ends with 1 if a target that was asked for does not work.
    """
    from robust_edge.checking.check import DEFAULT_TARGETS, check_network
    from robust_edge.importing.without_images import check_file
    from robust_edge.run.directory import open_run
    from robust_edge_exporters.target import target_named
    from robust_edge_runtimes.core.errors import InputError
    from robust_edge_runtimes.core.limits import TimeLimit

    if (run is None) == (arch is None):
        raise InputError("name either a run, an ONNX file or an architecture (--arch)")
    wanted = [name for text in names for name in text.split(",")]
    targets = [target_named(name, jetpack) for name in wanted or DEFAULT_TARGETS]
    progress = output.progress("checking targets")
    if run is not None and run.suffix.lower() == ".onnx":
        found, changes = check_file(run, targets, shape, progress)
        for change in changes:
            output.note(f"note: {change}")
    elif run is not None:
        opened = open_run(run, allow_code=allow_code)
        with TimeLimit(str(run), InputError).opening():
            model, spec = opened.load_model(), opened.checkpoint().model
        found = check_network(model, spec.shape, targets, progress)
    else:
        assert arch is not None
        model, spec = _built(arch, dataset, data_dir, shape, classes)
        found = check_network(model, spec.shape, targets, progress)
    failed = bool(names) and not all(result.works for result in found.targets)
    output.verdict(_text(found), found, context, int(failed))


def _built(
    arch: str, dataset: str, data_dir: str | None, shape: tuple[int, ...] | None, classes: int
) -> tuple[Normalized, ModelSpec]:
    import torch

    from robust_edge.data import load_dataset
    from robust_edge.data.settings import DataConfig
    from robust_edge.models import ModelSpec, build_model
    from robust_edge.models.spec import check_training

    names = tuple(map(str, range(classes)))
    if shape is None:
        images = load_dataset(DataConfig(dataset=dataset, dir=data_dir))
        shape, names = images.shape, images.classes
    spec = ModelSpec(arch=arch, shape=shape, classes=names, mean=(0.5,) * shape[0], std=(0.25,) * shape[0])
    torch.manual_seed(0)
    model = build_model(spec)
    check_training(model, spec)
    return model, spec


def _text(found: NetworkCheck) -> str:
    lines = [f"{found.weights} prunable weights in {len(found.layers)} tensors; one image and a batch run"]
    lines += [f"  left out: {item.name}, which {item.reason}" for item in found.left_out]
    if found.unprunable:
        lines.append(f"  cannot be pruned: {found.unprunable}")
    width = max(len(result.target) for result in found.targets)
    for result in found.targets:
        works = WORKS_IN_8_BITS if result.precision == "int8" else "works"
        lines.append(f"{result.target:{width}}  {result.precision}  {works if result.works else result.problem}")
    return "\n".join(lines)
