"""Run the verify modes on one bundle, and judge it against the run that it was exported from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn

from robust_edge.run.directory import Checkpoint, Run, open_run
from robust_edge.verification.background import BackgroundRebuild
from robust_edge.verification.claims import check_claims
from robust_edge.verification.inspection import inspect_on_host
from robust_edge.verification.kernels import device_runtime
from robust_edge.verification.modes.table import MODES
from robust_edge.verification.new_export import compare_with_run
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.stored_attack import ProgressOf
from robust_edge.verification.subject import check_origin, host_subject
from robust_edge_runtimes.core.bundle import Bundle, refuse_unlisted
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, InputError
from robust_edge_runtimes.core.limits import TimeLimit
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.modes.mode import Progress, chosen_modes, options_of
from robust_edge_runtimes.modes.sequence import judge_in_blocks
from robust_edge_runtimes.modes.settings import quick_defaults
from robust_edge_runtimes.present.verdict import rebuild_line
from robust_edge_runtimes.verdict.judge import Verdict
from robust_edge_runtimes.verdict.measurement import Budget, Rebuild


def verify_bundle(
    bundle: Bundle,
    run: Run | None,
    budget: Budget,
    settings: VerifySettings,
    *,
    threads: int = 1,
    progress: ProgressOf = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    background: BackgroundRebuild | None = None,
) -> Verdict:
    """Attack the artifact in every mode and judge it against its checkpoint.

    Args:
        bundle: opened; if others can write its folder, as `private_bundle`.
        run: the run that it was exported from; None to verify the bundle alone.
        budget: percentage points that the artifact may lose, and flags that it may raise.
        settings: of the modes.
        threads: CPU threads of the artifact's runtime.
        progress: from a mode's name to its progress callback.
        note: as `judge_in_blocks`.
        background: the comparison of mode `rebuild`, if it was already started for this bundle and run.

    Raises:
        InputError: a mode that needs a run without one, a run that the bundle was not exported from, or one that was
            written meanwhile.
        BundleError: the bundle contradicts itself, or the run's class names.
        BackendUnavailable: the artifact's runtime is not installed here.
    """
    modes = chosen_modes(settings.modes, MODES, with_run=run is not None)
    if not settings.modes:
        settings = dataclasses.replace(settings, options=quick_defaults(options_of(MODES).values(), settings.options))
    for mode in modes:
        if mode.needs and run is None:
            raise InputError(f"mode {mode.name} needs {mode.needs}; give the bundle's run as `run`")
    if run is None and format_named(bundle.manifest.artifact.format).code_files:
        refuse_unlisted(bundle)
    network, find_rebuild = None, None
    checkpoint = None if run is None else run.checkpoint()
    if run is not None:
        check_origin(bundle, run)
        with TimeLimit(str(bundle.path), BundleError).opening():
            check_claims(bundle, run)
        network = run.load_model()
        # the comparison costs an export: whoever asks first waits for it, all others get the same result
        find_rebuild = functools.cache(functools.partial(_rebuild, bundle, run, network, settings.data_dir, background))
        _refuse_other_code(bundle, find_rebuild)
    compared = find_rebuild if any(not mode.needs_runtime for mode in modes) else None
    with _opened(bundle, compared, threads) as model:
        subject = dataclasses.replace(host_subject(bundle, model, run, network, settings), find_rebuild=find_rebuild)
        shown = _sharing_cpus(progress, background)
        inspection = inspect_on_host(subject, settings, shown)
        verdict = judge_in_blocks(subject, inspection, modes, settings, budget, shown, note)
    if run is not None and checkpoint is not None:
        _refuse_changed(run, checkpoint)
    return verdict


def _refuse_changed(run: Run, checkpoint: Checkpoint) -> None:
    """Raise InputError where a run is not the one that was read before."""
    if open_run(run.path, allow_code=run.allow_code).config != run.config or run.checkpoint() != checkpoint:
        raise InputError(f"{run.path} was written while a bundle was verified against it; verify the bundle again")
    run.weights_file()  # raises InputError where the weights are not those that `run` records


def _rebuild(
    bundle: Bundle, run: Run, network: nn.Module, data_dir: str | None, background: BackgroundRebuild | None
) -> Rebuild:
    limit = TimeLimit(f"{bundle.path} with a new export of the run", BundleError)
    with limit.opening(compiles=True, action="comparing"):
        found = None if background is None else background.result()
        return found or compare_with_run(bundle, run, network, data_dir)


def _refuse_other_code(bundle: Bundle, find_rebuild: Callable[[], Rebuild]) -> None:
    """Compile and run only what the run exports: other code could change the verdict itself.

    Raises:
        BundleError: the source in the bundle is other code.
    """
    code = format_named(bundle.manifest.artifact.format).code_files
    if not code:
        return
    found = find_rebuild()
    for line in found.differences:
        if line.startswith(code):
            raise BundleError(
                f"{bundle.path}: {line}{found.other_versions}; nothing of it was compiled or run. Export the bundle "
                "again"
            )


def _opened(bundle: Bundle, find_rebuild: Callable[[], Rebuild] | None, threads: int) -> BaseRuntime:
    """The artifact's runtime. If it is not installed here, the error includes the comparison of the bundle's files."""
    try:
        return device_runtime(bundle, threads=threads)
    except BackendUnavailable as cause:
        if find_rebuild is None:
            raise
        found = find_rebuild()
        text = "; ".join([str(cause), f"nothing was attacked. {rebuild_line(found)}", *found.differences])
        raise BackendUnavailable(text) from cause


def _sharing_cpus(progress: ProgressOf, background: BackgroundRebuild | None) -> ProgressOf:
    """Before each attack, let torch use all its threads, or one fewer while the second process exports the run."""
    threads = torch.get_num_threads()

    def start(mode: str) -> Progress:
        exporting = background is not None and background.running
        torch.set_num_threads(max(1, threads - 1) if exporting else threads)
        return progress(mode)

    return start
