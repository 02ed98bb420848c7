"""`robust-edge targets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from robust_edge_runtimes.cli.options import examples
from robust_edge_runtimes.cli.output import Output, output_options

if TYPE_CHECKING:
    from robust_edge_exporters.target import Target


@click.command()
@output_options
@examples("robust-edge targets", "robust-edge targets --json")
def targets(output: Output) -> None:
    """List the targets of `export --target` with their limits."""
    import dataclasses

    from robust_edge_exporters.target import targets as table_of_targets
    from robust_edge_runtimes.present.tables import table

    known = table_of_targets()
    header = ["target", "artifact", "opset", "IR", "exporter", "precision", "python", "runs on"]
    rows = [
        [
            target.name,
            target.format,
            f"{target.opset} of {target.opset_max}" if target.opset else "-",
            str(target.ir_version or "-"),
            target.exporter or "-",
            ", ".join(target.precisions),
            target.python,
            target.runtime,
        ]
        for target in known.values()
    ]
    text = table(header, rows, words=len(header)) + "\n\n" + "\n\n".join(_limits(target) for target in known.values())
    output.result(
        text,
        {name: {**dataclasses.asdict(target), "exporter": target.exporter} for name, target in known.items()},
    )


def _limits(target: Target) -> str:
    """The names of a target, its limits, and the precisions that it does not support with reasons, one per line."""
    names = [f"--target {name}" for name in (target.family, *target.aliases)]
    calls = names if target.jetpack is None else [f"{name} --jetpack {target.jetpack}" for name in names]
    if target.jetpack is not None and target.default:
        calls += names
    lines = [f"{target.name} ({', '.join(calls)}): {target.description}"]
    lines += [f"  - {limit}" for limit in target.limits]
    lines += [f"  - no {request}: {reason}" for request, reason in target.refuses.items()]
    return "\n".join(lines)
