"""The subject of a verdict on the host: the bundle, and the run that it was exported from where there is one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from robust_edge.data import Split
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.run.directory import Run
from robust_edge.run.images import evaluation_images
from robust_edge.verification.paired_pgd import GradientOracle
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.twins.table import has_twin, twin_of
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable, TwinError
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.decode import short_repr
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.verdict.flags import Flag
from robust_edge_runtimes.verdict.images import DrawnImages, from_test_images, refuse_no_images
from robust_edge_runtimes.verdict.subject import Subject, golden_images


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HostSubject(Subject):
    """The artifact under test with its checkpoint and its twin.

    Attributes:
        run: what the bundle was exported from; None where it is not at hand.
        network: the run's network; None without a run.
        checkpoint: the same as a source of gradients.
        find_twin: makes `twin`, once for all parts of the images.
    """

    run: Run | None = None
    network: nn.Module | None = None
    checkpoint: GradientOracle | None = None
    find_twin: Callable[[], tuple[Differentiable, tuple[Flag, ...]]] | None = None

    @property
    def twin(self) -> tuple[Differentiable, tuple[Flag, ...]]:
        """The artifact's twin, or the checkpoint where there is none; a flag where there should be one.

        Raises:
            InputError: there is neither a twin nor a run.
        """
        return _twin(self.bundle, self.network) if self.find_twin is None else self.find_twin()


def host_subject(bundle: Bundle, model: BaseRuntime, run: Run | None, settings: VerifySettings) -> HostSubject:
    """Gather what the modes share.

    Args:
        bundle: opened.
        model: its open runtime.
        run: what it was exported from, as `check_origin` has found.
        settings: which images are drawn.

    Raises:
        BundleError: golden.npz contradicts the manifest.
    """
    golden, eps = bundle.golden(), bundle.manifest.expected.attack.eps
    refuse_no_images(settings.limit)
    if run is None:
        find_twin = functools.lru_cache(maxsize=1)(lambda: _twin(bundle, None))
        images = golden_images(golden, settings.limit, settings.seed)
        return HostSubject(bundle, golden, model, eps, *images, find_twin=find_twin)
    network, split = run.load_model(), evaluation_images(run, data_dir=settings.data_dir)
    checkpoint = TorchOracle(network)
    available = len(split) if settings.limit is None else min(settings.limit, len(split))
    return HostSubject(
        bundle,
        golden,
        model,
        max(eps, run.config.attack.eps),  # the bundle's ball may be smaller than the one trained against
        lambda start, stop: drawn_images(split, golden, min(stop, available), settings.seed, start=start),
        available,
        checkpoint.logits,
        run=run,
        network=network,
        checkpoint=checkpoint,
        find_twin=functools.lru_cache(maxsize=1)(lambda: _twin(bundle, network)),
    )


def _twin(bundle: Bundle, network: nn.Module | None) -> tuple[Differentiable, tuple[Flag, ...]]:
    try:
        return twin_of(bundle), ()
    except TwinError as cause:
        if network is None:
            raise InputError(f"mode whitebox: {cause}; name the run with --against RUN") from cause
        expected = has_twin(bundle.manifest.artifact.format)
        return Differentiable(network, CHECKPOINT), (Flag("no_twin", str(cause)),) if expected else ()


def drawn_images(split: Split, golden: Golden, limit: int | None, seed: int, *, start: int = 0) -> DrawnImages:
    """Images of a run's test split, as `from_test_images` draws them."""

    def floats(positions: np.ndarray) -> np.ndarray:
        return split.floats(torch.from_numpy(positions)).numpy()

    return from_test_images(floats, split.labels.numpy(), golden, limit, seed, start=start)


def check_origin(bundle: Bundle, run: Run) -> None:
    """Refuse a run that the bundle was not exported from.

    Raises:
        InputError: its checkpoint is another.
        BundleError: its class names are others.
    """
    checkpoint, source = run.checkpoint(), bundle.manifest.source
    expected, found = source.checkpoint_sha256, checkpoint.weights_sha256
    if expected != found:
        raise InputError(
            f"{bundle.path} was exported from run {source.run!r} (checkpoint {expected[:12]}), not "
            f"from {run.path} (checkpoint {found[:12]}); name the right run with --against"
        )
    in_bundle, in_run = bundle.manifest.classes, checkpoint.model.classes
    if in_bundle != in_run:
        raise BundleError(
            f"{bundle.path} names the classes {short_repr(in_bundle)}, its checkpoint {short_repr(in_run)}: right "
            "answers would get wrong names; export it again"
        )
