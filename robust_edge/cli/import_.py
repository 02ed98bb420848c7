"""`robust-edge import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_edge.cli.types import PATH, Numbers, Radius, Shape
from robust_edge.config.compress import command_settings
from robust_edge.settings.options import parameter_name, setting_options
from robust_edge_runtimes.cli.options import examples, lock_outputs
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options

if TYPE_CHECKING:
    from robust_edge.run.directory import Checkpoint

OWN = {"data.dataset", "data.dir", "data.download"}
SETTINGS = [item for item in command_settings() if item[0] in OWN]


@click.command("import")
@click.argument("source", type=PATH)
@click.option("--arch", help="Architecture of a state dict: a name as for compress, torchvision/NAME or timm/NAME.")
@setting_options(SETTINGS)
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting such as data.resize=224.")
@click.option(
    "--input-shape", "shape", type=Shape(), help="CxHxW, if the ONNX file does not fix it.  [default: the images']"
)
@click.option("--mean", type=Numbers(), help="Mean that is subtracted from pixels in [0, 1].  [default: 0]")
@click.option(
    "--std",
    type=Numbers(),
    help="Standard deviation that pixels are then divided by, such as 1/255.  [default: 1]",
)
@click.option("--classes", type=PATH, help="Text file with one class name per line, in the order of the logits.")
@click.option(
    "--eps",
    type=Radius(),
    default=0.0,
    help="Radius that the network was trained with, which `evaluate`, `export` and `verify` use by default.  "
    "[default: 0; they then use 8/255]",
)
@click.option("--allow-code", is_flag=True, help="Allow a file that can execute code while it is read (.pt2).")
@click.option("--overwrite", is_flag=True, help="Replace an older run in -o.")
@click.option("-o", "--out", required=True, type=PATH, help="The run directory to write.")
@limit_options
@output_options
@examples(
    "robust-edge import model.onnx --dataset folder --data-dir data/cats --mean 0.485,0.456,0.406 "
    "--std 0.229,0.224,0.225 -o runs/cats",
    "robust-edge import resnet18.pth --arch torchvision/resnet18 --dataset folder --data-dir data -o runs/r18",
)
def import_(
    source: Path,
    arch: str | None,
    assignments: tuple[str, ...],
    shape: tuple[int, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    classes: Path | None,
    eps: float,
    allow_code: bool,
    overwrite: bool,
    out: Path,
    output: Output,
    **flags: Any,
) -> None:
    """Make a run from a network that is already trained: an ONNX file, a state dict, or a program of torch.export.

    The weights are not changed. Every command that takes a run also takes an imported one.

    With an --eps above 0, the network is also attacked, on up to 1000 test images (PGD, 20 steps); --set
    data.limit_test=200 shortens that. `export` attacks the images that it stores, with or without --eps.
    """
    from robust_edge.config.settings import read_text, resolve
    from robust_edge.importing.run import ImportSettings, import_run
    from robust_edge.run.per_class import describe_classes

    keys = {parameter_name(key): key for key, _, _ in SETTINGS}
    given = {keys[name]: value for name, value in flags.items() if value is not None}
    if "data.dir" in given:
        given["data.dir"] = str(Path(given["data.dir"]).absolute())  # later commands may run in another folder
    lock_outputs(out)
    config = resolve(flags={**given, "attack.eps": eps}, assignments=assignments)
    settings = ImportSettings(
        arch=arch,
        shape=shape,
        mean=mean or (0.0,),
        std=std or (1.0,),
        classes=None if classes is None else tuple(filter(None, map(str.strip, read_text(classes).splitlines()))),
        classes_file=classes,
        allow_code=allow_code,
    )
    checkpoint, notes = import_run(
        source, config, out, settings, overwrite=overwrite, progress=output.progress("evaluating")
    )
    output.note(describe_classes(checkpoint.per_class, attacked=bool(checkpoint.metrics["attack_eps"])))
    for note in (*notes, *checkpoint.notes):
        output.note(f"note: {note}")
    output.result(_summary(checkpoint, out), checkpoint)


def _summary(checkpoint: Checkpoint, out: Path) -> str:
    from robust_edge.models.table import GRAPH
    from robust_edge_runtimes.present.tables import percent

    counts, metrics, spec = checkpoint.sparsity, checkpoint.metrics, checkpoint.model
    attacked = ", not attacked (--eps 8/255 would attack the test images)"
    if metrics["attack_eps"]:
        robust, steps = percent(metrics["robust_accuracy"]), metrics["attack_steps"]
        attacked = f", PGD-{steps:.0f} at eps {metrics['attack_eps']:.4g} {robust}"
    assert checkpoint.imported is not None
    name = Path(checkpoint.imported.file).name + (f" as {spec.arch}" if spec.arch != GRAPH else "")
    return (
        f"{out}: {name} for images of {'x'.join(map(str, spec.shape))} and {len(spec.classes)} classes, "
        f"{counts.nonzero} of {counts.weights} prunable weights non-zero ({100 * counts.keep:.2f}%), "
        f"clean {percent(metrics['clean_accuracy'])}{attacked}"
    )
