"""Algorithm 3 against a naive loop, and its refusals."""

import dataclasses

import pytest
import torch

from robust_edge.attacks.ball import start_points
from robust_edge.attacks.pgd import Pgd, last_iterate
from robust_edge.evaluation.settings import TransferSettings
from robust_edge.evaluation.transfer import Transfer, run_transfer
from robust_edge.run.directory import open_run
from robust_edge.run.images import evaluation_images
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.errors import InputError

SETTINGS = TransferSettings(epsilons=(0.05, 0.2), steps=5, limit=25, batch=10)


@pytest.fixture(scope="module")
def matrix(judged_run, sibling_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("transfer") / "transfer.json"
    return out, run_transfer([judged_run, sibling_run], [sibling_run], SETTINGS, out)


def test_a_naive_loop_finds_the_same(matrix, judged_run, sibling_run):
    _, result = matrix
    models = {"judged": judged_run.load_model(), "sibling": sibling_run.load_model()}
    split, rows = evaluation_images(judged_run), torch.tensor(result.positions)
    images, labels = split.floats(rows), split.labels[rows]
    assert [(curve.source, curve.target) for curve in result.curves] == [
        ("judged", "judged"),
        ("judged", "sibling"),
        ("sibling", "sibling"),
    ]
    for curve in result.curves:
        for point in curve.points:
            start = start_points(images, Threat(point.eps), 0, list(result.positions), 0)
            seen = last_iterate(models[curve.source], images, labels, Pgd(steps=5), Threat(point.eps), start)
            with torch.no_grad():
                target = models[curve.target]
                held = (target(images).argmax(1) == labels) & (target(seen).argmax(1) == labels)
            assert point.held == "".join("01"[int(bit)] for bit in held)
            assert point.accuracy.correct == int(held.sum())


def test_the_white_box_is_hit_harder_than_its_sibling(matrix):
    _, result = matrix
    own, other = (curve.points[-1].accuracy.correct for curve in result.curves[:2])
    assert own < other


def test_the_file_reads_back_and_every_network_is_audited(matrix):
    out, result = matrix
    assert decode(Transfer, read_json(out)) == result
    assert {network.name for network in result.networks} == {"judged", "sibling"}
    assert all(network.audit.flags == ("few_steps",) for network in result.networks)
    assert [path.name for path in out.parent.iterdir()] == ["transfer.json"]


def test_a_target_that_others_images_hit_harder_than_its_own_is_flagged(matrix, judged_run, sibling_run, tmp_path):
    """A network that hides its slope holds under its own gradients, and falls under its sibling's."""
    models = {run.path: run.load_model() for run in (judged_run, sibling_run)}

    class Hiding(torch.nn.Module):
        def forward(self, x):
            return models[judged_run.path]((x * 16).round() / 16)

    with pytest.MonkeyPatch.context() as patch:
        masked = Hiding().eval()
        patch.setattr(
            type(judged_run), "load_model", lambda self: masked if self.path == judged_run.path else models[self.path]
        )
        runs = [judged_run, sibling_run]
        result = run_transfer(runs, runs, dataclasses.replace(SETTINGS, steps=10), tmp_path / "t.json")
    flags = {network.name: network.audit.flags for network in result.networks}
    assert "transfer_beats_white_box" in flags["judged"]
    assert "transfer_beats_white_box" not in flags["sibling"]


def test_a_killed_transfer_goes_on_or_begins_anew(matrix, judged_run, sibling_run, tmp_path, monkeypatch):
    from robust_edge.evaluation import job as module

    inner, resumed = module.run_campaign, []

    def dying(campaign, **keywords):
        calls = iter(range(2))

        perturb = Pgd.perturb

        def dying_perturb(*batch, **rest):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return perturb(*batch, **rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pgd, "perturb", dying_perturb)
            return inner(campaign, **keywords)

    def counting(campaign, **keywords):
        resumed.append(inner(campaign, **keywords))
        return resumed[-1]

    def start(settings):
        return run_transfer([judged_run], [sibling_run], settings, tmp_path / "t.json")

    for fresh, expected in ((False, 2), (True, 0)):
        monkeypatch.setattr(module, "run_campaign", dying)
        with pytest.raises(KeyboardInterrupt):
            start(SETTINGS)
        monkeypatch.setattr(module, "run_campaign", counting)
        result = start(dataclasses.replace(SETTINGS, fresh=fresh))
        assert resumed[-1].resumed == expected
        assert result.curves == matrix[1].curves[:2]
        assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
        (tmp_path / "t.json").unlink()


def test_a_source_that_is_finished_is_not_attacked_again(matrix, judged_run, sibling_run, tmp_path, monkeypatch):
    from robust_edge.evaluation import job as module

    inner, resumed = module.run_campaign, []

    def counting(*words, **rest):
        resumed.append(inner(*words, **rest))
        return resumed[-1]

    def one(campaign, **keywords):
        if resumed:
            raise KeyboardInterrupt
        return counting(campaign, **keywords)

    def start():
        return run_transfer([judged_run, sibling_run], [sibling_run], SETTINGS, tmp_path / "t.json")

    monkeypatch.setattr(module, "run_campaign", one)
    with pytest.raises(KeyboardInterrupt):
        start()
    monkeypatch.setattr(module, "run_campaign", counting)
    assert start().curves == matrix[1].curves
    assert [result.resumed for result in resumed] == [0, 6, 0]  # three batches for each of two radii
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_images_are_made_once_per_source(judged_run, sibling_run, tmp_path, monkeypatch):
    made, inner = [], Pgd.perturb

    def counted(attack, *batch, **rest):
        made.extend([attack] if attack.last else [])
        return inner(attack, *batch, **rest)

    monkeypatch.setattr(Pgd, "perturb", counted)
    run_transfer([judged_run], [judged_run, sibling_run], SETTINGS, tmp_path / "t.json")
    assert len(made) == 2 * 3, "two radii, three batches, whatever the number of targets"


def test_runs_of_other_images_are_refused(judged_run, sparse_run, tmp_path):
    with pytest.raises(InputError, match="test images"):
        run_transfer([judged_run], [sparse_run], SETTINGS, tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["classes", "image shape"])
def test_runs_of_other_classes_or_sizes_are_refused(judged_run, sibling_run, tmp_path, monkeypatch, what):
    checkpoint = sibling_run.checkpoint()
    change = {"classes": ("a", "b")} if what == "classes" else {"shape": (3, 8, 8)}
    changed = dataclasses.replace(checkpoint, model=dataclasses.replace(checkpoint.model, **change))
    inner = type(sibling_run).checkpoint
    monkeypatch.setattr(
        type(sibling_run), "checkpoint", lambda self: changed if self.path == sibling_run.path else inner(self)
    )
    with pytest.raises(InputError, match=what):
        run_transfer([judged_run], [sibling_run], SETTINGS, tmp_path / "t.json")


def test_two_runs_of_one_name_are_refused(judged_run, tmp_path):
    import shutil

    twin = open_run(shutil.copytree(judged_run.path, tmp_path / "judged"))
    with pytest.raises(InputError, match="same name"):
        run_transfer([judged_run], [twin], SETTINGS, tmp_path / "t.json")


def test_the_command_prints_the_matrix_and_refuses_radius_0(judged_run, sibling_run, cli, refused, tmp_path):
    words = ["--source", judged_run.path, "--target", sibling_run.path, "--steps", "2", "--limit", "10", "-q"]
    done = cli("transfer", *words, "--eps", "8/255", "--eps", "0.2", "-o", tmp_path / "t.json")
    assert done.exit_code == 0
    assert "judged (white box)" in done.stdout
    assert "images made on judged" in done.stdout
    assert "peak memory at most" in done.stdout
    assert "judged: FLAG few_steps" in done.stdout
    assert "above 0" in refused("transfer", *words, "--eps", "0", "-o", tmp_path / "u.json")
    assert "Missing option" in refused("transfer", "--source", judged_run.path)
