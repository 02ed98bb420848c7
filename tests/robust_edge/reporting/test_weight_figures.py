"""Which runs share a panel, and that the panel shows the written weights."""

import dataclasses

import numpy as np
import pytest

from robust_edge.reporting.collect import RunData, WeightCounts, collect_runs
from robust_edge.reporting.weight_figures import BENIGN_OR_ROBUST, BY_KEEP, caption, draw, weight_figures
from robust_edge.run.directory import Run

COUNTS = WeightCounts(np.linspace(-2, 2, 5), np.array([1, 5, 3, 1]), 10, 30)


@pytest.fixture
def made(tiny, tmp_path):
    """A run that was never trained, of a config."""

    def make(index, arch="small_cnn", dataset="digits", eps=0.1, keep=1.0):
        config = tiny({"arch": arch, "data.dataset": dataset, "attack.eps": eps, "pruning.keep": keep})
        run = Run(tmp_path / f"{arch}-{dataset}-{eps}-{keep}", config)
        return RunData(name=run.path.name, index=index, run=run, epochs=(), environment=None, weights=COUNTS)

    return make


def grouped(runs):
    return {
        (figure.kind, figure.arch): {name: [run.index for run in panel] for name, panel in figure.panels.items()}
        for figure in weight_figures(runs)
    }


def test_runs_meet_where_they_differ_in_one_thing(made):
    runs = [
        made(0, eps=0.0),
        made(1),
        made(2, keep=0.5),
        made(3, keep=0.1),
        made(4, dataset="cifar10", eps=0.0),
        made(5, dataset="cifar10"),
        made(6, arch="mobilenet_v2", keep=0.1),
        made(7, arch="mobilenet_v2"),
        made(8, arch="resnet18"),
        made(9, arch="resnet18", eps=0.0, keep=0.1),
    ]
    assert grouped(runs) == {
        (BENIGN_OR_ROBUST, "small_cnn"): {"digits": [0, 1], "cifar10": [4, 5]},
        (BY_KEEP, "small_cnn"): {"digits": [1, 2, 3]},
        (BY_KEEP, "mobilenet_v2"): {"digits": [6, 7]},
    }


def test_unfinished_runs_take_no_part(made):
    assert grouped([made(0, eps=0.0), dataclasses.replace(made(1), weights=None)]) == {}
    assert weight_figures([]) == []


@pytest.mark.parametrize("kind", [BENIGN_OR_ROBUST, BY_KEEP])
def test_a_panel_shows_the_share_of_weights_in_every_bin(made, kind):
    runs = [made(0, eps=0.0), made(1), made(2, keep=0.5)]
    (figure,) = [item for item in weight_figures(runs) if item.kind == kind]
    axes = draw(figure).axes[0]
    assert axes.get_yscale() == ("log" if kind == BY_KEEP else "linear")
    for patch in axes.patches:
        np.testing.assert_allclose(patch.get_data().values, COUNTS.counts / 40)
        np.testing.assert_allclose(patch.get_data().edges, COUNTS.edges / (2 if kind == BY_KEEP else 1))
    assert len(axes.patches) == 2
    assert "small_cnn" in caption(figure)


def test_the_legend_holds_the_accuracies(tiny, sparse_run, benign_run):
    sparse = collect_runs([sparse_run])[0]
    config = dataclasses.replace(tiny({"pruning.keep": 1.0}), arch=sparse.config.arch)
    robust_dense = dataclasses.replace(collect_runs([benign_run])[0], index=1, run=Run(benign_run.path, config))
    runs = [sparse, robust_dense]
    (figure,) = weight_figures(runs)
    labels = [text.get_text() for text in draw(figure).axes[0].get_legend().get_texts()]
    metrics = sparse_run.checkpoint().metrics
    assert f"10% kept, acc {100 * metrics['clean_accuracy']:.1f}%" in labels[0]
    assert f"adv_acc {100 * metrics['robust_accuracy']:.1f}% at ε = 0.1" in labels[0]
