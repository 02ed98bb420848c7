"""The trained networks in examples/cifar10: small, with the zeros that they state, and usable without their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robust_edge.evaluation.record import stored_evaluation
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.run.directory import WEIGHTS, open_run
from robust_edge.run.images import dataset_of
from robust_edge_runtimes.core.errors import InputError

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path for path in (ROOT / "examples/cifar10").iterdir() if path.is_dir())


def test_all_small_networks_of_the_trial_are_there():
    assert [path.name for path in FOLDERS] == [
        "block-10", "block-10-continued", "irregular-10", "irregular-10-continued",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_network_is_small_and_has_the_zeros_that_it_states(folder):
    run = open_run(folder)
    assert (folder / WEIGHTS).stat().st_size < 500_000
    weights = prunable_parameters(run.load_model()).values()
    nonzero, total = sum(int(weight.count_nonzero()) for weight in weights), sum(weight.numel() for weight in weights)
    assert nonzero == run.checkpoint().sparsity.nonzero
    assert nonzero <= round(0.1 * total)
    assert nonzero > 0.095 * total, "a kept block may hold zeros, but few"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_readme_has_the_accuracies_of_the_checkpoint(folder):
    metrics = open_run(folder).checkpoint().metrics
    clean, robust = (f"{100 * metrics[name]:.1f}" for name in ("clean_accuracy", "robust_accuracy"))
    size = f"{(folder / WEIGHTS).stat().st_size / 1e6:.2f}"
    readme = (folder.parent / "README.md").read_text("utf-8")
    assert f"| `{folder.name}` | {clean} | {robust} | {size} |" in readme
    assert (metrics["images"], metrics["attack_steps"]) == (1000, 20)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_readme_has_the_accuracies_under_autoattack(folder):
    record = stored_evaluation(open_run(folder), "autoattack")
    assert record is not None, "the outcomes belong to these weights"
    assert record.result is not None
    clean, robust = (
        f"{100 * found.value:.1f}% ({100 * found.low:.1f} to {100 * found.high:.1f})"
        for found in (record.result.clean, record.result.robust)
    )
    readme = " ".join((folder.parent / "README.md").read_text("utf-8").split())
    assert f"`{folder.name}`: {clean} without an attack, {robust} under AutoAttack" in readme


def test_the_readme_has_the_images_on_which_two_networks_differ():
    """Under AutoAttack, on the same images: right after training on and wrong before, and the other way round."""
    counts = []
    for name in ("irregular-10", "block-10"):
        before, after = (
            stored_evaluation(open_run(ROOT / "examples/cifar10" / each), "autoattack").result
            for each in (name, f"{name}-continued")
        )
        assert before.positions == after.positions
        pairs = [tuple(each == "robust" for each in pair) for pair in zip(before.outcomes, after.outcomes, strict=True)]
        counts += [pairs.count((False, True)), pairs.count((True, False))]
    readme = " ".join((ROOT / "examples/cifar10/README.md").read_text("utf-8").split())
    won, lost, of_blocks_won, of_blocks_lost = counts
    assert f"(right on {won} of 1,000 images on which `irregular-10` is wrong, wrong on {lost} where" in readme
    assert f"networks with blocks ({of_blocks_won} and {of_blocks_lost})" in readme


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_network_tells_pictures_apart(folder):
    model = open_run(folder).load_model().eval()
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(images)
    assert logits.shape == (8, 10)
    assert (logits - logits[:1]).abs().max() > 0.1


def test_without_the_images_the_error_names_the_folder_that_is_missing():
    with pytest.raises(InputError, match="data/cifar10"):
        dataset_of(open_run(FOLDERS[0]))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_files_name_no_folder_of_one_machine(folder):
    for path in folder.rglob("*"):
        if path.suffix in {".yaml", ".json", ".jsonl"}:
            assert ": /" not in path.read_text("utf-8")
            assert '"/' not in path.read_text("utf-8")
