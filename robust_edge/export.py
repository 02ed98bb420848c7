"""From a finished run to a bundle: golden images, calibration images and the source, handed to the exporters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from robust_edge.attacks.pgd import Pgd
from robust_edge.checking.check import require_targets
from robust_edge.config.export import ExportChoices, GoldenSettings
from robust_edge.data import Split
from robust_edge.data.holdout import balanced_sample
from robust_edge.evaluation.accuracy import attack_split
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.models import ARCHITECTURES
from robust_edge.run.directory import Checkpoint, Run
from robust_edge.run.environment import versions
from robust_edge.run.images import dataset_of
from robust_edge_exporters.bundle import (
    ArtifactRequest,
    Exported,
    ExportRequest,
    export_bundle,
    refuse_choices,
    refuse_to_replace,
)
from robust_edge_exporters.formats.onnx.conversions import shared_conversions
from robust_edge_exporters.formats.table import format_named
from robust_edge_exporters.target import Target
from robust_edge_runtimes.attacks.threat import LINF, USUAL_EPS, Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden, expected_of, most_golden_images
from robust_edge_runtimes.core.manifest import Source

GOLDEN_TOLERANCE = 1e-3


def export_run(
    run: Run,
    target: Target,
    path: Path,
    *,
    golden: GoldenSettings | None = None,
    choices: ExportChoices | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Export a finished run to a bundle.

    Ranges of int8 come from training images, so that the golden images, which are test images, stay unseen.

    Raises:
        InputError, ExportError, BackendUnavailable: as `export_bundle`.
    """
    settings, chosen = golden or GoldenSettings(), choices or ExportChoices()
    refuse_to_replace(path, overwrite=overwrite)  # like the precision, before anything is attacked
    refuse_choices(target, precision=chosen.precision, batch=chosen.batch, options=chosen.options)
    precision = target.precision(chosen.precision)
    if chosen.explain_int8 and precision != "int8":
        raise InputError(f"`explain_int8` is for int8; target {target.name} is exported in {precision}")
    dataset = dataset_of(run, data_dir)
    model = run.load_model()
    with shared_conversions():  # with the check
        if run.config.arch not in ARCHITECTURES:
            require_targets(model, dataset.shape, [target])  # before anything is attacked
        format_named(target.format).check_options(model, dataset.shape, target, chosen.options)
        network = artifact_request(run, model, target, chosen, lambda: dataset.train)
        split = dataset.test.first(min(settings.images, most_golden_images(dataset.shape, len(dataset.classes))))
        eps = settings.eps if settings.eps is not None else run.config.attack.eps or USUAL_EPS[LINF]
        attack, threat = Pgd(steps=settings.steps, restarts=1), Threat(eps)
        images = make_golden(model, split, attack, threat, settings.seed, progress)
        spec = attack.spec(threat, settings.seed)
        request = ExportRequest(**vars(network), expected=expected_of(images, spec), golden=images)
        return export_bundle(request, path, overwrite=overwrite)


def artifact_request(
    run: Run, model: nn.Module, target: Target, choices: ExportChoices, training_images: Callable[[], Split]
) -> ArtifactRequest:
    """All that the artifact of a finished run depends on, for `write_artifact`; no image is attacked.

    Args:
        run: finished.
        model: its network, as loaded.
        target: what it is exported for.
        choices: what the target leaves open.
        training_images: called where int8 needs them.

    Raises:
        InputError: the target does not run the precision, or the run is not finished.
    """
    precision, checkpoint = target.precision(choices.precision), run.checkpoint()
    calibration, held_out = calibration_images(training_images(), choices) if precision == "int8" else (None, None)
    return ArtifactRequest(
        model=model,
        shape=checkpoint.model.shape,
        classes=checkpoint.model.classes,
        sparsity=checkpoint.sparsity,
        source=_source(run, checkpoint),
        target=target,
        precision=precision,
        batch=choices.batch,
        calibration=calibration,
        held_out=held_out,
        calibration_method=choices.calibration_method,
        explain=choices.explain_int8,
        options=choices.options,
        layer_forms=choices.layer_forms,
        compile_library=choices.compile_library,
        compact=choices.compact,
        preprocessing=checkpoint.preprocessing,
        ranges=checkpoint.ranges,
    )


def calibration_images(train: Split, choices: ExportChoices) -> tuple[np.ndarray, np.ndarray]:
    """Images to read ranges from, and others to judge the calibration by: each (n, C, H, W) float32 in [0, 1].

    They are the training images that a run sets aside first, if it sets any aside.
    """
    chosen = train.take(balanced_sample(train, choices.calibration + choices.held_out)).floats(slice(None)).numpy()
    return chosen[: choices.calibration], chosen[choices.calibration :]


def make_golden(
    model: nn.Module,
    split: Split,
    attack: Pgd,
    threat: Threat,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Golden:
    """Clean and attacked images with the checkpoint's logits on both."""
    attacked = attack_split(model, split, attack, threat, seed=seed, progress=progress).images.numpy()
    clean, oracle = split.floats(slice(None)).numpy(), TorchOracle(model)
    return Golden(
        clean=clean,
        attacked=attacked,
        labels=split.labels.numpy(),
        clean_logits=oracle.logits(clean),
        attacked_logits=oracle.logits(attacked),
        tolerance=GOLDEN_TOLERANCE,
    )


def _source(run: Run, checkpoint: Checkpoint) -> Source:
    return Source(
        run=run.name,
        checkpoint_sha256=checkpoint.weights_sha256,
        arch=checkpoint.model.arch,
        dataset=checkpoint.dataset,
        dataset_fingerprint=checkpoint.dataset_fingerprint,
        versions=versions(),
    )
