"""`robust-edge-device predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import click

from robust_edge_runtimes.cli.options import BUNDLE, THREADS, examples
from robust_edge_runtimes.cli.output import Output, output_options
from robust_edge_runtimes.cli.supervision import limit_options


@click.command()
@click.argument("bundle", type=BUNDLE)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@THREADS
@limit_options
@output_options
@examples(
    "robust-edge-device predict bundle/ cat.png dog.png",
    "robust-edge-device predict bundle/ frame.npy --json",
)
def predict(bundle: Path, images: Tuple[Path, ...], threads: int, output: Output) -> None:
    """Classify image files.

    Pictures (BMP, GIF, JPEG, PNG, PPM, TIFF, WebP) need Pillow; they are turned upright, laid on the background, scaled
    and cropped as in the training. Arrays (.npy) are taken as they are, (C, H, W) float32 in [0, 1] or uint8.
    """
    from robust_edge_runtimes.load import load

    with load(bundle, threads=threads) as model:
        arrays = [model.read(path) for path in images]
        answers = [model.classify(array) for array in arrays]
    lines = [f"{click.format_filename(path)}  {label}  {p:.3f}" for path, (label, p) in zip(images, answers)]
    rows = [{"image": str(path), "label": label, "probability": p} for path, (label, p) in zip(images, answers)]
    output.result("\n".join(lines), rows)
