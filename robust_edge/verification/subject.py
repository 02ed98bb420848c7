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
from robust_edge.verification.claims import eps_of, false_claims
from robust_edge.verification.kernels import kernels_here
from robust_edge.verification.paired_pgd import GradientOracle
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.twins.table import has_twin, twin_of
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable, TwinError
from robust_edge_exporters.target import targets
from robust_edge_exporters.tolerance import IMAGES, logit_tolerance
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.verdict.flags import Flag
from robust_edge_runtimes.verdict.images import DrawnImages, from_test_images, refuse_no_images
from robust_edge_runtimes.verdict.subject import Subject, golden_images

FoundTwin = tuple[Differentiable | None, tuple[Flag, ...]]
"""The twin, or what replaces it, and a flag where there should be a twin."""


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
    find_twin: Callable[[], FoundTwin] | None = None

    @property
    def twin(self) -> FoundTwin:
        """The artifact's twin, or the checkpoint where there is none; a flag where there should be one.

        None where the artifact's own graph holds what cannot be differentiated, and there is no run.

        Raises:
            InputError: artifacts of this format have no twin, and there is no run.
        """
        return _twin(self.bundle, self.golden, self.network) if self.find_twin is None else self.find_twin()


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
    golden, manifest = bundle.golden(), bundle.manifest
    refuse_no_images(settings.limit)
    remarks = kernels_here(bundle, model, golden.attacked)
    if run is None:
        find_twin = functools.lru_cache(maxsize=1)(lambda: _twin(bundle, golden, None))
        eps = settings.eps or manifest.expected.attack.eps
        images = golden_images(golden, settings.limit, settings.seed)
        return HostSubject(bundle, golden, model, eps, *images, remarks=remarks, find_twin=find_twin)
    network, split = run.load_model(), evaluation_images(run, data_dir=settings.data_dir)
    checkpoint, eps = TorchOracle(network), settings.eps or eps_of(run)
    available = len(split) if settings.limit is None else min(settings.limit, len(split))
    first = split.first(IMAGES).floats(slice(None)).numpy()
    claims = false_claims(bundle, golden, run, network, checkpoint.logits, split, eps=eps, steps=settings.steps)
    return HostSubject(
        bundle,
        golden,
        model,
        eps,
        lambda start, stop: drawn_images(split, golden, min(stop, available), settings.seed, start=start),
        available,
        checkpoint.logits,
        measured_tolerance=logit_tolerance(network, first, manifest.artifact.precision, targets()[manifest.target]),
        checks=tuple(claims),
        remarks=remarks,
        run=run,
        network=network,
        checkpoint=checkpoint,
        find_twin=functools.lru_cache(maxsize=1)(lambda: _twin(bundle, golden, network)),
    )


def _twin(bundle: Bundle, golden: Golden, network: nn.Module | None) -> FoundTwin:
    try:
        twin = twin_of(bundle)
        refuse_no_gradient(twin, golden)
    except TwinError as cause:
        expected = has_twin(bundle.manifest.artifact.format)
        if network is None and not expected:
            raise InputError(f"mode whitebox: {cause}; name the run with --against RUN") from cause
        stand_in = None if network is None else Differentiable(network, CHECKPOINT)
        return stand_in, (Flag("no_twin", str(cause)),) if expected else ()
    return twin, ()


def refuse_no_gradient(twin: Differentiable, golden: Golden) -> None:
    """Raise TwinError where the twin does not run or has no gradient: what an operator refuses shows in a pass."""
    try:
        TorchOracle(twin.network).logits_and_gradient(golden.clean[:2], golden.labels[:2])
    except TwinError:
        raise
    except Exception as cause:  # torch raises whatever the graph provokes
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
            f"from {run.path} (checkpoint {found[:12]}); name the right run with --against"
        )
