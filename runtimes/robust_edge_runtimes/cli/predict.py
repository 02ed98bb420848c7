"""`robust-edge-device predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import click

from robust_edge_runtimes.cli.options import BUNDLE, THREADS, examples
from robust_edge_runtimes.cli.output import Output, output_options


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@THREADS
@output_options
@examples(
    "robust-edge-device predict bundle/ cat.png dog.png",
    "robust-edge-device predict bundle/ frame.npy --json",
)
def predict(bundle: Path, images: Tuple[Path, ...], threads: int, output: Output) -> None:
    """Classify image files (.npy, or any format that Pillow reads where it is installed)."""
    from robust_edge_runtimes.core.images import read_image
    from robust_edge_runtimes.load import load

    with load(bundle, threads=threads) as model:
        shape = tuple(size for size in model.manifest.input.shape[1:] if size is not None)
        arrays = [read_image(path, shape) for path in images]
        answers = [model.classify(array) for array in arrays]
    lines = [f"{click.format_filename(path)}  {label}  {p:.3f}" for path, (label, p) in zip(images, answers)]
    rows = [{"image": str(path), "label": label, "probability": p} for path, (label, p) in zip(images, answers)]
    output.result("\n".join(lines), rows)
