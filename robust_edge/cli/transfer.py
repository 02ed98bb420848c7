"""`robust-edge transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from robust_edge.attacks.table import CURVE
from robust_edge.cli.attack import attack_options, read_settings
from robust_edge.cli.types import ALLOW_CODE, PATH
from robust_edge.evaluation.settings import TransferSettings
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
@attack_options(TransferSettings, help="Attack that makes the images; see `robust-edge evaluate -h`.", without=(CURVE,))
@click.option(
    "-o", "--out", default=Path("transfer.json"), show_default=True, type=OUTPUT_FILE, help="JSON file to write."
)
@ALLOW_CODE
@output_options
@examples(
    "robust-edge transfer --source runs/dense --target runs/dense --target runs/sparse",
    "robust-edge transfer --source runs/a --source runs/b --target runs/a --target runs/b --eps 4/255 --eps 8/255",
)
def transfer(
    sources: tuple[Path, ...],
    targets: tuple[Path, ...],
    attack: str,
    out: Path,
    allow_code: bool,
    output: Output,
    assignments: tuple[str, ...],
    **given: Any,
) -> None:
    """Evaluate networks on attack images that were made on other networks, at increasing eps (Algorithm 3).

    The attack images of each source are computed once. The source itself classifies them, too, for the white-box curve.
    `robust-edge report RUN... --transfer FILE` draws the curves.
    """
    from robust_edge.evaluation.tables import transfer_table
    from robust_edge.evaluation.transfer import run_transfer
    from robust_edge.parallel.ranks import torchrun_ranks
    from robust_edge.run.directory import open_run

    given["epsilons"] = tuple(sorted(set(given["epsilons"])))
    settings = read_settings(TransferSettings, attack, assignments, given)
    with torchrun_ranks() as ranks:
        rank_output = output if ranks.writes else Output(json=False, verbosity=-1)
        result = run_transfer(
            [open_run(path, allow_code=allow_code) for path in sources],
            [open_run(path, allow_code=allow_code) for path in targets],
            settings,
            out,
            ranks=ranks,
            progress=rank_output.progress("transfer"),
            note=rank_output.detail,
        )
        if ranks.writes:
            output.result(transfer_table(result), result)
