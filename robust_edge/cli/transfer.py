"""`robust-edge transfer`."""

from __future__ import annotations

from pathlib import Path

import click

from robust_edge.attacks.table import CURVE, PGD
from robust_edge.cli.types import PATH, SEED, AnyRadius, AttackName
from robust_edge_runtimes.cli.options import OUTPUT_FILE, examples
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@click.option("--source", "sources", multiple=True, required=True, type=PATH, help="Run to attack; repeatable.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    type=PATH,
    help="Run to evaluate; repeatable.",
)
@click.option(
    "--attack",
    type=AttackName(without=(CURVE,)),
    default=PGD,
    show_default=True,
    help="Attack that makes the images; see `robust-edge evaluate -h`.",
)
@click.option(
    "--eps",
    "epsilons",
    multiple=True,
    type=AnyRadius(),
    help="Radius of the perturbation in pixel units; repeatable.  [default: nine values from 0.01 to 0.3]",
)
@click.option("--steps", type=click.IntRange(min=1), help="Gradient steps.  [default: 100]")
@click.option("--limit", type=click.IntRange(min=1), help="Use a fixed random subset of N test images.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the random starts.")
@click.option("--data-dir", help="Folder of the runs' images, if it was moved.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 or auto.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=250, show_default=True, help="Largest number of images per batch."
)
@click.option(
    "--memory", type=click.IntRange(min=1), default=2048, show_default=True, help="Memory budget of a batch in MiB."
)
@click.option("--fresh", is_flag=True, help="Start again instead of resuming an interrupted transfer.")
@click.option(
    "-o", "--out", default=Path("transfer.json"), show_default=True, type=OUTPUT_FILE, help="JSON file to write."
)
@output_options
@examples(
    "robust-edge transfer --source runs/dense --target runs/dense --target runs/sparse",
    "robust-edge transfer --source runs/a --source runs/b --target runs/a --target runs/b --eps 4/255 --eps 8/255",
)
def transfer(
    sources: tuple[Path, ...],
    targets: tuple[Path, ...],
    attack: str,
    epsilons: tuple[float, ...],
    steps: int | None,
    limit: int | None,
    seed: int,
    data_dir: str | None,
    device: str,
    batch: int,
    memory: int,
    fresh: bool,
    out: Path,
    output: Output,
) -> None:
    """Evaluate networks on attack images that were made on other networks, at increasing eps (Algorithm 3).

    The attack images of each source are computed once. The source itself classifies them, too, for the white-box curve.
    `robust-edge report RUN... --transfer FILE` draws the curves.
    """
    from robust_edge.evaluation.tables import transfer_table
    from robust_edge.evaluation.transfer import EPSILONS, TransferSettings, run_transfer
    from robust_edge.parallel.ranks import torchrun_ranks
    from robust_edge.run.directory import open_run

    settings = TransferSettings(
        attack=attack,
        epsilons=tuple(sorted(set(epsilons))) or EPSILONS,
        steps=steps,
        seed=seed,
        limit=limit,
        data_dir=data_dir,
        device=device,
        batch=batch,
        memory_mib=memory,
        fresh=fresh,
    )
    with torchrun_ranks() as ranks:
        rank_output = output if ranks.writes else Output(json=False, verbosity=-1)
        result = run_transfer(
            [open_run(path) for path in sources],
            [open_run(path) for path in targets],
            settings,
            out,
            ranks=ranks,
            progress=rank_output.progress("transfer"),
            note=rank_output.detail,
        )
        if ranks.writes:
            output.result(transfer_table(result), result)
