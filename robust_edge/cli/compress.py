"""`robust-edge compress`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_edge.cli.types import ALLOW_CODE, PATH
from robust_edge.config.compress import command_settings
from robust_edge.config.presets import DEFAULT, PRESETS
from robust_edge.settings.options import parameter_name, setting_options
from robust_edge_runtimes.cli.options import examples
from robust_edge_runtimes.cli.output import Output, output_options

if TYPE_CHECKING:
    from robust_edge.config.compress import CompressConfig
    from robust_edge.run.directory import Checkpoint

SETTINGS = list(command_settings())


@click.command()
@click.option(
    "--preset",
    help=f"Preset to start from: {', '.join(PRESETS)}.  [default: {DEFAULT}, unless --config is given]",
)
@click.option("--config", "config_file", type=PATH, help="YAML file with any of the settings.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting of docs/settings.md, for example training.lr=0.1; repeatable.",
)
@setting_options(SETTINGS)
@click.option("--resume", is_flag=True, help="Resume the run in -o, or start it if there is none.")
@click.option("--overwrite", is_flag=True, help="Replace an older run in -o; it is deleted when the training begins.")
@click.option("-o", "--out", required=True, type=PATH, help="The run directory to write.")
@ALLOW_CODE
@output_options
@examples(
    "robust-edge compress --dataset digits --keep 0.1 --eps 0.1 -o runs/digits-10",
    "robust-edge compress --preset thesis --dataset cifar10 --data-dir data --download --arch resnet34 -o runs/r34",
    "robust-edge compress --dataset folder --data-dir data/cats --arch resnet18 --eps 8/255 -o runs/cats",
    "robust-edge compress --scheme nm --keep 0.5 --eps 0.1 -o runs/digits-2-of-4",
    "robust-edge compress --scheme irregular --scope macs --keep 0.1 --eps 0.1 -o runs/digits-fast",
    "robust-edge compress --scheme filter --keep 0.25 --eps 0.1 -o runs/digits-small",
    "robust-edge compress --init runs/cats --keep 0.05 --dataset folder --data-dir data/cats -o runs/cats-5",
    "robust-edge compress --init runs/cats-5 --keep-mask --dataset folder --data-dir data/new-cats -o runs/new-cats",
    "robust-edge compress --arch my_pkg.models:build --target x86-cpu-sparse,jetson-gpu --eps 0.1 -o runs/mine",
    "robust-edge compress --resume -o runs/r34",
    "torchrun --nproc-per-node 8 -m robust_edge compress --preset thesis --dataset cifar10 --data-dir data -o runs/r34",
)
def compress(
    preset: str | None,
    config_file: Path | None,
    assignments: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    out: Path,
    allow_code: bool,
    output: Output,
    **flags: Any,
) -> None:
    """Train a sparse and adversarially robust network in one run (ADMM + PGD).

    Settings that are neither in an option, nor in --set, nor in --config have the value of the preset.

    Under torchrun, all processes train one network, each on its part of every batch; rank 0 writes the files.
    """
    from robust_edge.config.settings import to_yaml
    from robust_edge.parallel.ranks import torchrun_ranks
    from robust_edge.reporting.collect import collect_runs
    from robust_edge.reporting.plots import write_plots
    from robust_edge.run.directory import CONFIG, open_run
    from robust_edge.training import compress as training
    from robust_edge.training.notes import notes_on
    from robust_edge_runtimes.core.errors import InputError

    if resume and overwrite:
        raise InputError("--resume keeps the run in -o and --overwrite replaces it; pass one of them")
    given = given_settings(flags)
    for key in {"data.dir", "init"} & given.keys():
        given[key] = str(Path(given[key]).absolute())  # later commands may run in another folder
    settings = _Settings(preset, config_file, assignments, given, allow_code)
    with torchrun_ranks() as ranks, ranks.locked(out):
        resuming = ranks.broadcast(lambda: resume and (out / CONFIG).is_file())
        config = ranks.broadcast(lambda: settings.resolved(out if resuming else None))
        terminal = output if ranks.writes else Output(json=False, verbosity=-1)
        progress = terminal.progress("training", begun=None if resuming else 0.0)
        terminal.detail(to_yaml(config))
        if resuming:
            checkpoint = training.resume(out, allow_code=allow_code, progress=progress, ranks=ranks)
        elif resume and not settings.any:
            raise InputError(
                f"{out} is not a run, so there is nothing to resume; name the run, or give settings for a new one"
            )
        else:
            for note in notes_on(config):
                terminal.note(f"note: {note}")
            checkpoint = training.compress(
                config, out, overwrite=overwrite, allow_code=allow_code, progress=progress, ranks=ranks
            )
        if ranks.writes:
            write_plots(collect_runs([open_run(out, allow_code=allow_code)])[0])
            _say(checkpoint, out, sparse=config.sparse, output=output)


def _say(checkpoint: Checkpoint, out: Path, *, sparse: bool, output: Output) -> None:
    """Print the finished run: what each layer keeps, the accuracy of each class, the notes and the result."""
    from robust_edge.run.per_class import describe_classes

    for layer in checkpoint.sparsity.layers:
        output.detail(f"{layer.name}: {layer.nonzero} of {layer.weights} weights non-zero ({layer.keep:.2%})")
    if sparse:
        output.note(_spread(checkpoint))
    output.note(describe_classes(checkpoint.per_class, attacked=bool(checkpoint.metrics["attack_eps"])))
    for note in checkpoint.notes:
        output.note(f"note: {note}")
    output.result(_summary(checkpoint, out), checkpoint)


def given_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings whose options were given, by dotted name."""
    keys = {parameter_name(key): key for key, _, _ in SETTINGS}
    given = {keys[name]: value for name, value in flags.items() if value not in (None, ())}
    if "targets" in given:
        given["targets"] = [name.strip() for text in given["targets"] for name in text.split(",")]
    return given


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings given on the command line, in the order in which later ones override earlier ones."""

    preset: str | None
    file: Path | None
    assignments: tuple[str, ...]
    flags: dict[str, Any]
    allow_code: bool

    @property
    def any(self) -> bool:
        return bool(self.preset or self.file or self.assignments or self.flags)

    def resolved(self, resumed: Path | None) -> CompressConfig:
        """The config of the run; for a resumed run it must equal the config of its start."""
        from robust_edge.config.settings import resolve
        from robust_edge.run.directory import open_run

        base = None if resumed is None else open_run(resumed, allow_code=self.allow_code).config
        config = resolve(
            preset=self.preset or (None if self.file or resumed else DEFAULT),
            file=self.file,
            flags=self.flags,
            assignments=self.assignments,
            base=base,
        )
        if base is None or not self.any:
            return config
        if config.arch is None:  # as in a file with the settings before the start, which chose the architecture
            config = dataclasses.replace(config, arch=base.arch)
        _check_same(config, base, resumed)
        return config


def _check_same(config: CompressConfig, started: CompressConfig, out: Path | None) -> None:
    from robust_edge.config.settings import differences
    from robust_edge_runtimes.core.errors import InputError

    changed = differences(started, config)
    if changed:
        raise InputError(
            f"{out} was started with other settings ({'; '.join(changed[:3])}); leave them out to resume it, or start "
            "a new run"
        )


def _spread(checkpoint: Checkpoint) -> str:
    """The sparsest and the densest layer: one that keeps too little can ruin a network whose total looks right."""
    layers = sorted(checkpoint.sparsity.layers, key=lambda layer: layer.keep)
    first, last = layers[0], layers[-1]
    return (
        f"kept per layer: {first.keep:.2%} of {first.name} ({first.nonzero} of {first.weights}) to {last.keep:.2%} of "
        f"{last.name}; all of them with -v, and in run.log"
    )


def _summary(checkpoint: Checkpoint, out: Path) -> str:
    from robust_edge_runtimes.present.tables import percent

    counts, metrics, arithmetic = checkpoint.sparsity, checkpoint.metrics, checkpoint.arithmetic
    cost = f", {100 * arithmetic.keep:.2f}% of the multiply-accumulates" if arithmetic else ""
    attacked = "not attacked (eps 0)"
    if metrics["attack_eps"]:
        robust, steps = percent(metrics["robust_accuracy"]), metrics["attack_steps"]
        attacked = f"PGD-{steps:.0f} at eps {metrics['attack_eps']:.4g} {robust}"
    return (
        f"{out}: {counts.nonzero} of {counts.weights} prunable weights kept ({100 * counts.keep:.2f}%){cost}, "
        f"clean {percent(metrics['clean_accuracy'])}, {attacked}"
    )
