"""Figures show the data."""

import dataclasses

import numpy as np

from robust_edge.reporting import figures
from robust_edge.reporting.drawing import line_style
from tests.robust_edge.reporting.samples import bench_of


def test_the_curve_figure_holds_every_point_and_the_chance_line(data):
    figure = figures.accuracy_curves([(run, run.curve) for run in data.runs])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for run in data.runs:
        points = [(point.eps, point.accuracy.value) for point in run.curve.points]
        np.testing.assert_array_equal(lines[run.name].get_xydata(), points)
    assert lines["chance (10.0%)"].get_ydata()[0] == 0.1


def test_the_weight_figure_counts_the_written_tensors(data):
    for run in data.runs:
        assert run.weights.counts.sum() == run.weights.nonzero == run.checkpoint.sparsity.nonzero
        assert run.weights.nonzero + run.weights.zeros == run.checkpoint.sparsity.weights
    figure = figures.weight_histograms(data.runs)
    assert figure.axes[0].get_yscale() == "log"
    drawn = {patch.get_label(): patch.get_data().values for patch in figure.axes[0].patches}
    for run in data.runs:
        (values,) = [drawn[label] for label in drawn if label.startswith(f"{run.name}: ")]
        np.testing.assert_array_equal(values, run.weights.counts)


def test_the_loss_figure_holds_every_epoch_and_marks_the_masked_phase(data):
    figure = figures.adversarial_loss(data.runs)
    for axes, run in zip(figure.axes, data.runs, strict=True):
        rows = run.run.metrics()
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(row.epoch, row.adversarial_loss) for row in rows])
        notes = [text.get_text() for text in axes.texts]
        assert notes == (["ADMM", "masked"] if run.sparse else ["dense: nothing is pruned"])
    first_masked = next(row.epoch for row in data.runs[0].run.metrics() if row.phase == "masked")
    assert figure.axes[0].patches[0].get_x() == first_masked - 0.5
    assert not figure.axes[1].patches


def test_the_layer_figure_shows_each_layers_share(data):
    run = data.runs[0]
    figure = figures.kept_weights([(run, run.checkpoint.sparsity)])
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert widths == [layer.nonzero / layer.weights for layer in run.checkpoint.sparsity.layers]


def test_the_panel_marks_right_and_wrong(data):
    run = data.runs[0]
    points, truth = run.curve.points, run.curve.panel.truth
    predicted = tuple(tuple((t + (step > 0)) % 10 for t in truth) for step in range(len(points)))
    curve = dataclasses.replace(run.curve, panel=dataclasses.replace(run.curve.panel, predicted=predicted))
    figure = figures.attacked_images(run, curve, images=1)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.texts if text.get_text()[0] in "✓✗"]
    classes = run.checkpoint.model.classes
    assert labels == [f"✓ {classes[truth[0]]}"] + [f"✗ {classes[(truth[0] + 1) % 10]}"] * (len(axes.images) - 1)
    np.testing.assert_array_equal(axes.images[0].get_array(), np.float32(curve.panel.pixels[0][0][0]))
    assert [patch.get_linewidth() for patch in axes.patches[:2]] == [1.2, 3]


def test_the_latency_figure_shows_medians(tmp_path):
    bench = bench_of(wobble=1.5)
    figure = figures.latency_bars(bench)
    for axes, protocol, length in zip(figure.axes, (0, 1), (1e3, 1e6), strict=True):
        medians = [entry.latencies[protocol].p50_ns / length for entry in bench.entries]
        np.testing.assert_allclose([patch.get_width() for patch in axes.patches], medians)
    assert any("unstable" in text.get_text() for text in figure.axes[0].texts)
    assert not any("unstable" in text.get_text() for text in figure.axes[1].texts)


def test_looks_differ():
    styles = [line_style(index) for index in range(28)]
    assert len(set(styles)) == 28
