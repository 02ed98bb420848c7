"""The twin of a subject's artifact, which is made when a mode first needs it."""

from __future__ import annotations

import dataclasses
import functools

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.models import Normalized
from robust_edge.onnx_graph.error import GraphError
from robust_edge.verification.twins.table import has_twin, twin_of
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable, InTime, TwinError
from robust_edge_exporters.kernel_noise import int8_tolerance
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.limits import TimeLimit
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.verdict.checks import FLOAT32_ROUNDING
from robust_edge_runtimes.verdict.flags import Flag

TRIED = 2
"""Images that a new twin must be able to classify and differentiate."""
FoundTwin = tuple[Differentiable | None, tuple[Flag, ...]]
"""The twin or its replacement, and the flag `no_twin` if the format has twins and this artifact has none."""


@dataclasses.dataclass(frozen=True, eq=False)
class LazyTwin:
    """The twin of an artifact and its tolerance; both are computed once.

    Attributes:
        bundle: opened.
        golden: the images that it stores.
        model: the artifact's open runtime.
        network: the run's network, which replaces a missing twin; None without a run.
    """

    bundle: Bundle
    golden: Golden
    model: BaseRuntime
    network: Normalized | None = None

    @functools.cached_property
    def found(self) -> FoundTwin:
        """The artifact's twin, or the checkpoint if there is none; a flag if the format has twins.

        None if the artifact's graph contains an operator without gradient, and there is no run.

        Raises:
            InputError: artifacts of this format have no twin, and there is no run.
        """
        limit = TimeLimit(f"the twin of {self.bundle.artifact_path}", BundleError)
        try:
            with limit.call(max(TRIED, self.bundle.manifest.input.shape[0] or 1)):  # a fixed batch is filled
                twin = twin_of(self.bundle)
                refuse_no_gradient(twin, self.golden)
        except TwinError as cause:
            expected = has_twin(self.bundle.manifest.artifact)
            if self.network is None and not expected:
                raise InputError(f"mode whitebox: {cause}; give the bundle's run as `run`") from cause
            stand_in = None if self.network is None else Differentiable(self.network, CHECKPOINT)
            return stand_in, (Flag("no_twin", str(cause)),) if expected else ()
        return dataclasses.replace(twin, network=InTime(twin.network, limit)), ()

    @functools.cached_property
    def tolerance(self) -> float:
        """Largest relative error that rounding explains between an artifact in 8 bits and its twin."""
        twin, _ = self.found
        if twin is not None and twin.exact:
            return FLOAT32_ROUNDING
        return int8_tolerance(self.bundle, self.model, self.golden.attacked)


def refuse_no_gradient(twin: Differentiable, golden: Golden) -> None:
    """Run the twin forward and backward on some images; raise TwinError if it fails, or rounding leaves no gradient."""
    try:
        _, gradient = TorchOracle(twin.network).logits_and_gradient(golden.clean[:TRIED], golden.labels[:TRIED])
    except GraphError as cause:
        raise TwinError(str(cause)) from cause
    except Exception as cause:  # torch raises many types of errors
        raise TwinError(f"{twin.made_from} has no gradient: {' '.join(str(cause).split())[:200]}") from cause
    if twin.rounding and not gradient.any():
        raise TwinError(
            f"{twin.made_from} has no gradient: that of {', '.join(twin.rounding)} is zero; allow the flag no_twin to "
            "accept that"
        )
