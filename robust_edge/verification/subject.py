"""What `verify` judges on the host: an open bundle and, if available, the run that it was exported from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from robust_edge.data import Split
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.models import Normalized
from robust_edge.run.directory import Run
from robust_edge.run.images import dataset_of
from robust_edge.verification.claims import eps_of
from robust_edge.verification.paired_pgd import GradientOracle
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.twins.lazy import LazyTwin
from robust_edge.verification.twins.twin import CHECKPOINT
from robust_edge_exporters.kernel_noise import artifact_tolerance
from robust_edge_exporters.target import targets
from robust_edge_exporters.tolerance import IMAGES, logit_tolerance
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.closeness import OUTLIERS
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import share_above
from robust_edge_runtimes.verdict.flags import Check
from robust_edge_runtimes.verdict.images import ShuffledImages, refuse_no_images, refuse_noise
from robust_edge_runtimes.verdict.measurement import Rebuild
from robust_edge_runtimes.verdict.subject import Subject, golden_images


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HostSubject(Subject):
    """The artifact under test with its checkpoint and its twin.

    Attributes:
        twin: the artifact's twin, shared by all parts of the images.
        run: the run that the bundle was exported from; None if `verify` was called without one.
        network: the run's network; None without a run.
        checkpoint: the same as a source of gradients.
        training: images that the run was trained on; None without a run.
        test: the run's test images; None without a run.
        find_rebuild: compares the bundle with a new export of the run, once; None without a run.
    """

    twin: LazyTwin
    run: Run | None = None
    network: Normalized | None = None
    checkpoint: GradientOracle | None = None
    training: Split | None = None
    test: Split | None = None
    find_rebuild: Callable[[], Rebuild] | None = None

    def compared(self, name: str, images: np.ndarray, logits: np.ndarray) -> list[Check]:
        """Compare as for every subject; an artifact in 8 bits is compared with its twin instead of the checkpoint.

        A tenth of the images may differ by more than the tolerance, and none if the twin computes the same integers.
        """
        if self.precision != "int8" or self.reference is None:
            return super().compared(name, images, logits)
        twin, _ = self.twin.found
        if twin is None or twin.made_from == CHECKPOINT:
            return []
        share = share_above(self.twin.tolerance, logits, TorchOracle(twin.network).logits(images))
        detail = f"on {100 * share:.2g}% of the {name} the artifact's logits are not its twin's"
        return [Check("twin_differs", share > (0.0 if twin.exact else OUTLIERS["int8"]), detail)]

    def training_images(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """At most `count` training images (n, C, H, W) and their labels (n,); empty arrays without a run."""
        if self.training is None:
            return self.images.images[:0], self.images.labels[:0]
        positions = torch.from_numpy(np.sort(random.permutation(len(self.training))[:count]))
        return self.training.floats(positions).numpy(), self.training.labels[positions].numpy()


def host_subject(
    bundle: Bundle, model: BaseRuntime, run: Run | None, network: Normalized | None, settings: VerifySettings
) -> HostSubject:
    """Gather what the modes share.

    Args:
        bundle: opened.
        model: its open runtime.
        run: what it was exported from, as `check_origin` has found.
        network: the run's, as loaded; None without a run.
        settings: which images are drawn.

    Raises:
        BundleError: golden.npz contradicts the manifest.
    """
    refuse_noise(bundle.manifest)
    golden = bundle.golden()
    refuse_no_images(settings.limit)
    without_run = HostSubject(
        bundle,
        golden,
        model,
        settings.eps or bundle.manifest.expected.attack.eps,
        *golden_images(golden, settings.limit, settings.seed),
        total=len(golden.labels),
        twin=LazyTwin(bundle, golden, model, network),
    )
    return without_run if run is None or network is None else _with_run(without_run, run, network, settings)


def _with_run(subject: HostSubject, run: Run, network: Normalized, settings: VerifySettings) -> HostSubject:
    """The same subject with the run's network, images, radius and tolerance."""
    dataset, golden, manifest = dataset_of(run, settings.data_dir), subject.golden, subject.bundle.manifest
    test, row = dataset.test, targets()[manifest.target]
    available = len(test) if settings.limit is None else min(settings.limit, len(test))
    shuffled = shuffled_images(test, golden, settings.seed)
    first, checkpoint = test.first(IMAGES).floats(slice(None)).numpy(), TorchOracle(network)
    tolerance = logit_tolerance(network, first, manifest.artifact.precision, row)
    own = artifact_tolerance(subject.bundle, row, network, subject.model, golden.attacked, tolerance)
    return dataclasses.replace(
        subject,
        eps=settings.eps or eps_of(run),
        draw=lambda start, stop: shuffled.draw(start, min(stop, available)),
        available=available,
        total=len(test),
        reference=checkpoint.logits,
        measured_tolerance=tolerance,
        measured_artifact_tolerance=own,
        run=run,
        network=network,
        checkpoint=checkpoint,
        training=dataset.train,
        test=test,
    )


def shuffled_images(split: Split, golden: Golden, seed: int) -> ShuffledImages:
    """The images of a run's test split in the order in which they are drawn."""

    def floats(positions: np.ndarray) -> np.ndarray:
        return split.floats(torch.from_numpy(positions)).numpy()

    return ShuffledImages(floats, split.labels.numpy(), golden, seed)


def check_origin(bundle: Bundle, run: Run) -> None:
    """Refuse a run that the bundle was not exported from.

    Raises:
        InputError: its checkpoint is another.
    """
    source = bundle.manifest.source
    expected, found = source.checkpoint_sha256, run.checkpoint().weights_sha256
    if expected != found:
        raise InputError(
            f"{bundle.path} was exported from run {source.run!r} (checkpoint {expected[:12]}), not "
            f"from {run.path} (checkpoint {found[:12]}); give the right one as `run`"
        )
