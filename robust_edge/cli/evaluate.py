"""`robust-edge evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from robust_edge.attacks.table import ATTACKS, OWN
from robust_edge.cli.attack import attack_options, read_settings
from robust_edge.cli.types import ALLOW_CODE, PATH
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge_runtimes.cli.options import OUTPUT_FILE, examples
from robust_edge_runtimes.cli.output import Output, output_options


def _list_attacks(command: Callable[..., None]) -> Callable[..., None]:
    """Put the table of attacks into a command's help text."""
    width = max(map(len, [*ATTACKS, OWN]))
    rows = {
        **{name: row.summary for name, row in ATTACKS.items()},
        OWN: "your own subclass of robust_edge.attacks.attack.Attack",
    }
    listed = "\n    ".join(f"{name:{width}}  {text}" for name, text in rows.items())
    command.__doc__ = (command.__doc__ or "").replace("{attacks}", listed)
    return command


@click.command()
@click.argument("run", type=PATH)
@attack_options(EvaluateSettings, help="Attack to run; see above.")
@click.option(
    "--with",
    "other",
    type=PATH,
    metavar="RUN",
    help="Second run: attack the average of both networks' class probabilities.",
)
@click.option("--saliency", is_flag=True, help="Also store input gradients for the report (extra `interpret`).")
@click.option("-o", "--out", type=OUTPUT_FILE, help="JSON file to write.  [default: RUN/evaluations/ATTACK.json]")
@ALLOW_CODE
@output_options
@examples(
    "robust-edge evaluate runs/digits-10 --eps 0.1 --steps 50",
    "robust-edge evaluate runs/digits-10 --attack curve --limit 200",
    "robust-edge evaluate runs/digits-10 --attack autoattack --eps 8/255",
    "robust-edge evaluate runs/digits-10 --attack autoattack --norm l2 --eps 0.5 --limit 500",
    "robust-edge evaluate runs/robust --with runs/benign --attack cw --eps 0.1 --steps 32",
    "torchrun --nproc-per-node 4 --no-python robust-edge evaluate runs/r34 --attack autoattack",
)
@_list_attacks
def evaluate(
    run: Path,
    attack: str,
    other: Path | None,
    saliency: bool,
    out: Path | None,
    allow_code: bool,
    output: Output,
    assignments: tuple[str, ...],
    **given: Any,
) -> None:
    """Measure the clean and robust accuracy of a checkpoint, image by image, with validity flags.

    \b
    {attacks}

    A run keeps one record per attack, norm and --with; a new one replaces it. Repeat the command to resume an
    interrupted evaluation. The two AutoAttack sets need an extra: pip install 'robust-edge[attack]'.
    """
    from robust_edge.evaluation.evaluate import evaluate_run
    from robust_edge.evaluation.saliency import evaluate_saliency
    from robust_edge.evaluation.tables import evaluation_table
    from robust_edge.parallel.ranks import torchrun_ranks
    from robust_edge.reporting.collect import collect_runs
    from robust_edge.reporting.plots import write_plots
    from robust_edge.run.directory import open_run

    settings = read_settings(EvaluateSettings, attack, assignments, given)
    with torchrun_ranks() as ranks:
        opened = open_run(run, allow_code=allow_code)
        rank_output = output if ranks.writes else Output(json=False, verbosity=-1)
        if saliency and ranks.writes:
            evaluate_saliency(opened, data_dir=settings.data_dir, device=settings.device)
        record = evaluate_run(
            opened,
            settings,
            out,
            other=None if other is None else open_run(other, allow_code=allow_code),
            ranks=ranks,
            progress=rank_output.progress(attack),
            note=rank_output.detail,
            warn=rank_output.note,
        )
        if ranks.writes:
            write_plots(collect_runs([opened])[0])
            if record.resumed:
                output.note(f"{record.resumed} batch(es) were resumed from an interrupted evaluation")
            output.result(evaluation_table(record, opened.checkpoint().no_better), record)
