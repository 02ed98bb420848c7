"""What `verify` judges on the host: an open bundle and, if available, the run that it was exported from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from robust_edge.data import Split
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.models import Normalized
from robust_edge.onnx_graph.error import GraphError
from robust_edge.run.directory import Run
from robust_edge.run.images import dataset_of
from robust_edge.verification.claims import eps_of, false_claims
from robust_edge.verification.kernels import int8_tolerance, kernel_notes
from robust_edge.verification.paired_pgd import GradientOracle
from robust_edge.verification.settings import STEPS_OPTION, VerifySettings
from robust_edge.verification.twins.table import has_twin, twin_of
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable, TwinError
from robust_edge_exporters.target import targets
from robust_edge_exporters.tolerance import IMAGES, logit_tolerance
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import share_above
from robust_edge_runtimes.verdict.checks import OUTLIERS
from robust_edge_runtimes.verdict.flags import Check, Flag
from robust_edge_runtimes.verdict.images import DrawnImages, from_test_images, refuse_no_images
from robust_edge_runtimes.verdict.measurement import Rebuild, golden_logits, parity_between
from robust_edge_runtimes.verdict.subject import Subject, golden_images

FoundTwin = tuple[Differentiable | None, tuple[Flag, ...]]
"""The twin or its replacement, and the flag `no_twin` if the format has twins and this artifact has none."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HostSubject(Subject):
    """The artifact under test with its checkpoint and its twin.

    Attributes:
        run: the run that the bundle was exported from; None if `verify` was called without one.
        network: the run's network; None without a run.
        checkpoint: the same as a source of gradients.
        training: images that the run was trained on; None where they are not at hand.
        find_rebuild: compares the bundle with a new export of the run, once; None without a run.
        find_twin, find_tolerance: make `twin` and `twin_tolerance`, once for all parts of the images.
    """

    run: Run | None = None
    network: nn.Module | None = None
    checkpoint: GradientOracle | None = None
    training: Split | None = None
    find_rebuild: Callable[[], Rebuild] | None = None
    find_twin: Callable[[], FoundTwin] | None = None
    find_tolerance: Callable[[], float] | None = None

    @property
    def twin(self) -> FoundTwin:
        """The artifact's twin, or the checkpoint if there is none; a flag if the format has twins.

        None if the artifact's graph contains an operator without gradient, and there is no run.

        Raises:
            InputError: artifacts of this format have no twin, and there is no run.
        """
        return _twin(self.bundle, self.golden, self.network) if self.find_twin is None else self.find_twin()

    @property
    def twin_tolerance(self) -> float:
        """Largest relative error that rounding explains between an artifact in 8 bits and its twin."""
        if self.find_tolerance is None:
            return int8_tolerance(self.bundle, self.model, self.golden.attacked)
        return self.find_tolerance()

    def compared(self, name: str, images: np.ndarray, logits: np.ndarray) -> list[Check]:
        """Compare as for every subject; an artifact in 8 bits is compared with its twin instead of the checkpoint."""
        if self.precision != "int8" or self.reference is None:
            return super().compared(name, images, logits)
        twin, _ = self.twin
        if twin is None or twin.made_from == CHECKPOINT:
            return []
        share = share_above(self.twin_tolerance, logits, TorchOracle(twin.network).logits(images))
        detail = f"on {100 * share:.0f}% of the {name} the artifact's logits are not its twin's"
        return [Check("twin_differs", share > OUTLIERS["int8"], detail)]

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
    golden = bundle.golden()
    refuse_no_images(settings.limit)
    alone = HostSubject(
        bundle,
        golden,
        model,
        settings.eps or bundle.manifest.expected.attack.eps,
        *golden_images(golden, settings.limit, settings.seed),
        remarks=kernel_notes(bundle, model, golden.attacked),
        stored_logits=golden_logits(model, golden),
        find_twin=functools.lru_cache(maxsize=1)(lambda: _twin(bundle, golden, network)),
        find_tolerance=functools.lru_cache(maxsize=1)(lambda: int8_tolerance(bundle, model, golden.attacked)),
    )
    return alone if run is None or network is None else _against(run, network, alone, settings)


def _against(run: Run, network: Normalized, alone: HostSubject, settings: VerifySettings) -> HostSubject:
    """The same subject with the run's images, radius and tolerance, and the bundle's claims compared with the run."""
    dataset, bundle = dataset_of(run, settings.data_dir), alone.bundle
    split, golden, row = dataset.test, alone.golden, targets()[bundle.manifest.target]
    available = len(split) if settings.limit is None else min(settings.limit, len(split))
    checkpoint = TorchOracle(network)
    first = split.first(IMAGES).floats(slice(None)).numpy()
    subject = dataclasses.replace(
        alone,
        eps=settings.eps or eps_of(run),
        draw=lambda start, stop: drawn_images(split, golden, min(stop, available), settings.seed, start=start),
        available=available,
        reference=checkpoint.logits,
        measured_tolerance=logit_tolerance(network, first, bundle.manifest.artifact.precision, row),
        run=run,
        network=network,
        checkpoint=checkpoint,
        training=dataset.train,
    )
    claims = false_claims(
        bundle,
        golden,
        run,
        network,
        checkpoint.logits,
        split,
        eps=subject.eps,
        steps=settings.value(STEPS_OPTION),
        tolerance=subject.tolerance,
        parity=parity_between(subject.logits_on_stored, golden),
    )
    return dataclasses.replace(subject, checks=tuple(claims))


def _twin(bundle: Bundle, golden: Golden, network: nn.Module | None) -> FoundTwin:
    try:
        twin = twin_of(bundle)
        refuse_no_gradient(twin, golden)
    except TwinError as cause:
        expected = has_twin(bundle.manifest.artifact.format)
        if network is None and not expected:
            raise InputError(f"mode whitebox: {cause}; give the bundle's run as `run`") from cause
        stand_in = None if network is None else Differentiable(network, CHECKPOINT)
        return stand_in, (Flag("no_twin", str(cause)),) if expected else ()
    return twin, ()


def refuse_no_gradient(twin: Differentiable, golden: Golden) -> None:
    """Run the twin forward and backward on two images; raise TwinError if it fails."""
    try:
        TorchOracle(twin.network).logits_and_gradient(golden.clean[:2], golden.labels[:2])
    except GraphError as cause:
        raise TwinError(str(cause)) from cause
    except Exception as cause:  # torch raises many types of errors
        raise TwinError(f"{twin.made_from} has no gradient: {' '.join(str(cause).split())[:200]}") from cause


def drawn_images(split: Split, golden: Golden, limit: int | None, seed: int, *, start: int = 0) -> DrawnImages:
    """Images of a run's test split, as `from_test_images` draws them."""

    def floats(positions: np.ndarray) -> np.ndarray:
        return split.floats(torch.from_numpy(positions)).numpy()

    return from_test_images(floats, split.labels.numpy(), golden, limit, seed, start=start)


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
