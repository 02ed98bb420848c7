"""`load()`: from a bundle to an open runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Union

from robust_edge_runtimes.core.bundle import Bundle, open_bundle, refuse_unlisted
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.table import format_named


def load(bundle: Union[str, Path, Bundle], *, threads: int = 1, from_source: bool = False) -> BaseRuntime:
    """Check a bundle, choose the runtime for its artifact format, and open it.

    Args:
        bundle: the folder that `robust-edge export` wrote, or an opened bundle.
        threads: CPU threads of one inference. With more than 1, a process that is forked afterwards cannot use the
            runtime, nor one that is forked while another thread uses it: its `infer` raises InputError. Load in the
            child, with threads=1, or start it by `spawn`.
        from_source: compile what the bundle holds the source of, where there is a compiler, as `verify` does.

    Returns:
        An open runtime; use it in a `with` block, or call `close()`.

    Raises:
        BundleError: the bundle is damaged or not a bundle; or a source is to be compiled beside files that the manifest
            does not list.
        InputError: the bundle runs on PyTorch, and was to have threads in a fork of a process that has used them.
        BackendUnavailable: the backend for its artifact is not installed here.

    Example:
        with load("bundle/") as model:
            label, probability = model.classify(image)
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    manifest = opened.manifest
    row = format_named(manifest.artifact.format)
    if from_source and row.code_files:
        refuse_unlisted(opened)
    kind = row.runtime_from_source() if from_source else row.runtime()
    return kind(opened.artifact_path, manifest, threads=threads).open()
