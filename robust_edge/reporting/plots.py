"""The figures of one run, as PNG files in RUN/plots."""

from __future__ import annotations

from matplotlib.figure import Figure

from robust_edge.reporting import figures
from robust_edge.reporting.collect import RunData
from robust_edge.reporting.drawing import png
from robust_edge.reporting.schedule_figure import schedule_panels
from robust_edge.training.schedules import schedules
from robust_edge_runtimes.core.files import remove_leftovers, write_atomic


def write_plots(run: RunData) -> None:
    """Write the figures that there is data for, and remove older ones of which the data is gone.

    Raises:
        OSError: the folder of the run is not writable.
    """
    folder = run.run.path / "plots"
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    for name, figure in run_figures(run).items():
        path = folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
        else:
            write_atomic(path, png(figure))


def run_figures(run: RunData) -> dict[str, Figure | None]:
    """File name to figure; None where the run has no data for it."""
    curve, checkpoint = run.curve, run.checkpoint
    return {
        "schedules": schedule_panels(schedules(run.config), run.config) if run.config.training.epochs else None,
        "layers": None if checkpoint is None else figures.kept_weights([(run, checkpoint.sparsity)]),
        "weights": None if run.weights is None else figures.weight_histograms([run]),
        "loss": figures.adversarial_loss([run]) if run.epochs else None,
        "curve": None if curve is None else figures.accuracy_curves([(run, curve)]),
        "attacked": None if curve is None else figures.attacked_images(run, curve),
    }
