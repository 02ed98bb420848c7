"""The report, one self-contained HTML page: compression, accuracy, verdict on the exported artifact, latency."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from robust_edge.config.settings import to_yaml
from robust_edge.evaluation.saliency import Saliency
from robust_edge.reporting import figures, findings, formats, weight_figures
from robust_edge.reporting import robustness_figures as drawn
from robust_edge.reporting.collect import ReportData, RunData, clean_text, collect
from robust_edge.reporting.device_figures import device_bars
from robust_edge.reporting.devices import DeviceTimings, by_device, called, latency_tables, protocols_of
from robust_edge.reporting.documents import documents, text_of
from robust_edge.reporting.drawing import line_style, png_uri, svg_uri
from robust_edge.reporting.plots import write_plots
from robust_edge.reporting.robustness import benign_points, flags_of, robustness_tables
from robust_edge.reporting.sign_off import sign_off
from robust_edge.run.directory import Run
from robust_edge.run.per_class import balanced_accuracy
from robust_edge.verification.modes.table import MODES
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.core.links import resolved
from robust_edge_runtimes.core.locks import locked
from robust_edge_runtimes.core.version import __version__
from robust_edge_runtimes.present.tables import percent

TEMPLATE, STYLE = "report.html.j2", "style.css"
PANEL_IMAGES = 4
TITLE = b"robust-edge report</title>"  # ends the title of every report


def write_report(
    runs: Sequence[Run],
    verdicts: Sequence[Path],
    benches: Sequence[Path],
    out: Path,
    *,
    transfers: Sequence[Path] = (),
    reload: float = 0.0,
) -> list[Path]:
    """Write the page, its tables as Markdown and CSV next to it, and the figures of each run into RUN/plots.

    Args:
        runs: at least one, finished or not.
        verdicts: files that `verify -o` wrote.
        benches: files that `bench -o` wrote.
        out: path of the page; its folder is created.
        transfers: files that `transfer -o` wrote.
        reload: seconds after which a browser reads the page again; 0 for never.

    Returns:
        The paths of the page and of the tables.

    Raises:
        InputError: a file was not written by its command, `out` is a folder or one of the files, or
            another process writes it; or a file that is no table of an older report would be replaced by one.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the page to write, for example {out / 'report.html'}")
    if resolved(out) in {resolved(path) for path in (*verdicts, *benches, *transfers)}:
        raise InputError(f"{out} is one of the files to report on; name the page to write, for example report.html")
    with locked(out):
        data = collect(runs, verdicts, benches, transfers)
        tables = [*robustness_tables(data.runs, data.transfers), *latency_tables(by_device(data.benches))]
        beside = documents(tables, out)
        _refuse_others(out, list(beside))
        page = render(data, out, notes=_write_all_plots(data), reload=reload)
        for path, text in {out: clean_text(page), **beside}.items():
            write_atomic(path, text)
        return [out, *beside]


def _refuse_others(out: Path, beside: Sequence[Path]) -> None:
    """Raise InputError where a file beside the page, which the user has not named, is not that of an older report."""
    if out in beside:
        raise InputError(f"{out} is the name of the tables beside the page; name it {out.with_suffix('.html').name}")
    others = [path for path in beside if path.exists()]
    if others and not (out.is_file() and TITLE in out.read_bytes()):
        raise InputError(
            f"{others[0]} would be replaced by a table of {out}, and is not one of an older report; name the page "
            "otherwise, or move it away"
        )


def render(data: ReportData, out: Path, *, notes: Sequence[str] = (), reload: float = 0.0) -> str:
    """The page as text.

    Args:
        data: the result of `collect`.
        out: path of the page, for the command that writes it again.
        notes: warnings to show on the page.
        reload: as `write_report`.
    """
    files = resources.files(__package__)
    template = _environment().from_string(files.joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(
        style=files.joinpath(STYLE).read_text("utf-8"),
        data=data,
        out=out,
        runs=data.runs,
        figures=_figures(data),
        tables=robustness_tables(data.runs, data.transfers),
        notes=notes,
        reload=reload,
        command=findings.report_command(data, out),
        written=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        one_image=ONE_IMAGE,
        n_images=N_IMAGES,
        panel_images=PANEL_IMAGES,
        modes=MODES,
    )


def _write_all_plots(data: ReportData) -> list[str]:
    """Write the plots of all runs; return a note for each run whose folder is not writable."""
    notes = []
    for run in data.runs:
        try:
            write_plots(run)
        except PermissionError as cause:
            notes.append(f"{run.name}: no plots could be written into {run.run.path / 'plots'} ({cause.strerror})")
    return notes


def _figures(data: ReportData) -> dict[str, Any]:
    """Data URIs of the figures; None where there is no data."""
    runs = data.runs
    trained = [run for run in runs if run.epochs]
    weighed = [run for run in runs if run.weights is not None]
    curves = [(run, run.curve) for run in runs if run.curve is not None]
    return {
        "layers": [
            svg_uri(figures.kept_weights([(run, run.checkpoint.sparsity) for run in group.pruned if run.checkpoint]))
            if group.pruned
            else None
            for group in findings.layer_tables(runs)
        ],
        "curve": svg_uri(figures.accuracy_curves(curves)) if curves else None,
        "weights": svg_uri(figures.weight_histograms(weighed)) if weighed else None,
        "weight_groups": [
            {"source": svg_uri(weight_figures.draw(item)), "caption": weight_figures.caption(item)}
            for item in weight_figures.weight_figures(runs)
        ],
        "loss": svg_uri(figures.adversarial_loss(trained)) if trained else None,
        "panels": {run.index: png_uri(figures.attacked_images(run, c, images=PANEL_IMAGES)) for run, c in curves},
        **_robustness_figures(data),
        "devices": _device_figures(by_device(data.benches)),
        "latency": [svg_uri(figures.latency_bars(item.bench)) for item in data.benches],
    }


def _device_figures(devices: Sequence[DeviceTimings]) -> list[tuple[str, str]]:
    """Name of the protocol, and figure; none for a single device, whose figure belongs to its bench result."""
    if len(devices) < 2:
        return []
    return [(called(*timed), svg_uri(device_bars(devices, *timed))) for timed in protocols_of(devices)]


def _robustness_figures(data: ReportData) -> dict[str, Any]:
    points = benign_points(data.runs)
    seen = [(run, run.saliency) for run in data.runs if run.saliency is not None]
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[RunData, Saliency]]] = {}
    for run, saliency in seen:
        assert run.checkpoint is not None
        places = (len(saliency.images), *(image.position for image in saliency.images))
        groups.setdefault((run.checkpoint.dataset_fingerprint, places), []).append((run, saliency))
    spots = {run.index: drawn.blind_spots(run, run.curve) for run in data.runs if run.curve is not None}
    return {
        "transfer": [svg_uri(drawn.transfer_panels(item)) for item in data.transfers],
        "compression": svg_uri(drawn.compression(points)) if points else None,
        "saliency": [png_uri(drawn.saliency_panel(group)) for group in groups.values()],
        "blind_spots": {index: png_uri(figure) for index, figure in spots.items() if figure is not None},
    }


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for function in (
        percent,
        formats.points,
        formats.drop_interval,
        formats.radius,
        formats.attack,
        formats.with_thousands,
        formats.short,
        formats.duration,
        formats.size,
        text_of,
        to_yaml,
        sign_off,
    ):
        environment.filters[function.__name__] = function
    environment.globals |= {
        "find": findings,
        "balanced": balanced_accuracy,
        "line_style": line_style,
        "time_unit": formats.time_unit,
        "flags_of": flags_of,
    }
    return environment
