"""Input gradients: the derivative of the logit of the true class with respect to the pixels, through captum.

Source: Marshall 2020, appendix A, and Etmann et al. 2019: robust networks have gradients that people can read.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from robust_edge.attacks.input_gradients import only_input_gradients
from robust_edge.evaluation.campaign import predictions
from robust_edge.evaluation.subset import choose
from robust_edge.parallel.device import pick_device
from robust_edge.run.directory import Run
from robust_edge.run.environment import versions
from robust_edge.run.images import evaluation_images
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.files import write_json

FILE = "saliency.json"
IMAGES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaliencyImage:
    """One image.

    Attributes:
        position: index in the test split.
        truth: true class index.
        predicted: predicted class index.
        pixels: (C·H·W) values in [0, 1], in the order channel, row, column.
        gradient: the signed derivative of the logit of the true class, in the same order.
    """

    position: int
    truth: int
    predicted: int
    pixels: tuple[float, ...]
    gradient: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saliency:
    """Input gradients for a fixed random subset of the test images, the same for all runs on the same data."""

    checkpoint_sha256: str
    shape: tuple[int, ...]
    images: tuple[SaliencyImage, ...]
    versions: dict[str, str]


def evaluate_saliency(run: Run, *, images: int = IMAGES, data_dir: str | None = None, device: str = "auto") -> Saliency:
    """Compute the input gradients of some test images and write `evaluations/saliency.json`.

    Raises:
        ModuleNotFoundError: the extra `interpret` is not installed.
    """
    from captum.attr import Saliency as InputGradient

    checkpoint, where = run.checkpoint(), pick_device(device)
    model = run.load_model().to(where)
    split, positions = choose(evaluation_images(run, data_dir=data_dir).to(where), images)
    pixels = split.floats(slice(None)).requires_grad_(True)
    with only_input_gradients(model), evaluation_mode(model):
        gradients = InputGradient(model).attribute(pixels, target=split.labels, abs=False)
    shown = [
        SaliencyImage(position=position, truth=truth, predicted=guess, pixels=picture, gradient=slope)
        for position, truth, guess, picture, slope in zip(
            positions,
            split.labels.tolist(),
            predictions(model, pixels.detach()).tolist(),
            _flat(pixels.detach()),
            _flat(gradients.detach()),
            strict=True,
        )
    ]
    result = Saliency(
        checkpoint_sha256=checkpoint.weights_sha256,
        shape=checkpoint.model.shape,
        images=tuple(shown),
        versions=versions(),
    )
    write_json(run.evaluations / FILE, dataclasses.asdict(result))
    return result


def stored_saliency(run: Run) -> Saliency | None:
    """The result of `evaluate_saliency` stored in the run; None if there is none or it belongs to other weights."""
    path: Path = run.path / "evaluations" / FILE
    if not path.is_file():
        return None
    found = decode(Saliency, read_json(path), where=str(path))
    return found if found.checkpoint_sha256 == run.checkpoint().weights_sha256 else None


def _flat(values: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in values.cpu().flatten(1).tolist()]
