"""`robust-edge transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from robust_edge.attacks.table import CURVE, PGD
from robust_edge.cli.types import PATH, AnyRadius, AttackName
from robust_edge.evaluation.settings import shared_settings
from robust_edge.settings.options import setting_options
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
@setting_options(shared_settings())
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting of the attack's class, such as confidence=20; repeatable. An unknown name lists all.",
)
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
    out: Path,
    output: Output,
    assignments: tuple[str, ...],
    **shared: Any,
) -> None:
    """Evaluate networks on attack images that were made on other networks, at increasing eps (Algorithm 3).

    The attack images of each source are computed once. The source itself classifies them, too, for the white-box curve.
    `robust-edge report RUN... --transfer FILE` draws the curves.
    """
    from robust_edge.evaluation.tables import transfer_table
    from robust_edge.evaluation.transfer import EPSILONS, TransferSettings, run_transfer
    from robust_edge.parallel.ranks import torchrun_ranks
    from robust_edge.run.directory import open_run
    from robust_edge.settings.notation import read_assignment

    settings = TransferSettings(
        attack=attack,
        options=dict(map(read_assignment, assignments)),
        **{name: value for name, value in shared.items() if value is not None},
        epsilons=tuple(sorted(set(epsilons))) or EPSILONS,
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
