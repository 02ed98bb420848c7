"""`robust-edge targets`."""

from __future__ import annotations

import click

from robust_edge_runtimes.console import Output, examples, output_options


@click.command()
@output_options
@examples("robust-edge targets", "robust-edge targets --json")
def targets(output: Output) -> None:
    """The devices that `export --target` knows, with their limits."""
    import dataclasses

    from robust_edge_exporters.target import targets as table_of_targets
    from robust_edge_runtimes.tables import table

    known = table_of_targets()
    rows = [
        [
            target.name,
            target.format,
            str(target.opset),
            ", ".join(target.precisions),
            target.python,
            target.description,
        ]
        for target in known.values()
    ]
    limits = [f"{target.name}: {limit}" for target in known.values() for limit in target.limits]
    text = table(["target", "artifact", "opset", "precision", "python", "for"], rows) + "\n\n" + "\n".join(limits)
    output.result(text, {name: dataclasses.asdict(target) for name, target in known.items()})
