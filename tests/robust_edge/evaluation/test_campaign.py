"""The loop that judges: against a naive loop, over kills, over processes, against attacks that lie."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from robust_edge.attacks.attack import Attack, Batch
from robust_edge.attacks.pgd import Pgd
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import accuracy
from robust_edge.evaluation.campaign import Campaign, CampaignResult, Stage, predictions, run_campaign
from robust_edge.evaluation.outcome import stage_results
from robust_edge.parallel.ranks import Ranks, torchrun_ranks
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError

N, EPS = 17, 0.15


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)).eval()


def split_of(model):
    images = torch.randint(0, 256, (N, 1, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    with torch.no_grad():
        labels = model(images.float() / 255).argmax(1)
    labels[2] = (labels[2] + 1) % 4
    return Split(images, labels)


def pgd_stage(name, steps, step_size=None):
    return Stage(name, Pgd(steps=steps, restarts=1, step_size=step_size), Threat(EPS))


@dataclasses.dataclass(frozen=True)
class Calling(Attack):
    """A function of images as an attack."""

    function: object

    def perturb(self, model, batch, threat):
        return self.function(batch.images)


@dataclasses.dataclass(frozen=True)
class Before(Attack):
    """Something that is done before another attack runs."""

    inner: Attack
    function: object

    def perturb(self, model, batch, threat):
        self.function(batch.images)
        return self.inner.perturb(model, batch, threat)


def before(stage, function):
    return dataclasses.replace(stage, attack=Before(stage.attack, function))


def campaign_of(model=None, *, batch=4, cumulative=True, stages=None, evaluated=None, identity="one"):
    model = model or network()
    split = split_of(model)
    stages = stages or (pgd_stage("weak", 1, step_size=0.02), pgd_stage("strong", 10))
    return Campaign(
        model=model,
        evaluated=evaluated or (model,),
        split=split,
        positions=tuple(range(N)),
        stages=tuple(stages),
        cumulative=cumulative,
        batch_size=batch,
        identity=identity,
    )


def same(left, right):
    assert torch.equal(left.clean, right.clean)
    assert torch.equal(left.robust, right.robust)
    assert torch.equal(left.attacked, right.attacked)
    assert left.outside == right.outside


def test_a_naive_loop_over_single_images_counts_the_same():
    campaign = campaign_of()
    (model,) = campaign.evaluated
    result = run_campaign(campaign)
    for row in range(N):
        image, label = campaign.split.floats(slice(row, row + 1)), campaign.split.labels[row]
        alive = bool(model(image).argmax() == label)
        assert bool(result.clean[0, row]) == alive
        for number, stage in enumerate(campaign.stages):
            assert bool(result.attacked[number, row]) == alive
            found = stage.attack.perturb(model, Batch(image, label[None], [row], 0), stage.threat)
            alive = alive and bool(model(found).argmax() == label)
            assert bool(result.robust[number, 0, row]) == alive
    held = [int(row.sum()) for row in result.robust[:, 0]]
    assert N > held[0] > held[1] > 0, "the stages show nothing if each breaks all or none"


@pytest.mark.parametrize("batch", [1, 3, 16, 250])
def test_batches_do_not_change_what_pgd_finds(batch):
    same(run_campaign(campaign_of(batch=batch)), run_campaign(campaign_of()))


def test_stages_that_are_not_cumulative_attack_everything():
    result = run_campaign(campaign_of(cumulative=False))
    assert result.attacked.all()
    assert not (result.robust & ~result.clean).any()


def test_a_campaign_may_end_early():
    seen = []
    result = run_campaign(campaign_of(), stop=lambda held: seen.append(held.clone()) is None)
    assert len(result.robust) == len(seen) == 1


@pytest.mark.parametrize("stop", [None, lambda held: True])
def test_progress_counts_to_one_end(stop):
    seen = []
    run_campaign(campaign_of(), stop=stop, progress=lambda *row: seen.append(row))
    assert {total for _, total in seen} == {2 * N}
    assert seen == sorted(seen)
    assert [done for done, _ in seen].index(2 * N) == len(seen) - 1


def test_nothing_to_check_is_no_pass():
    campaign = campaign_of()
    with pytest.raises(InputError, match="no images"):
        run_campaign(dataclasses.replace(campaign, split=campaign.split.first(0)))


def test_candidates_outside_the_ball_are_brought_back_before_they_are_judged():
    model = network()
    grey = Stage("cheat", Calling(lambda images: torch.rand_like(images) * 9 - 4), Threat(0.01))
    result = run_campaign(campaign_of(model, stages=(grey,)))
    assert result.outside == (N - 1,)
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x)
            return model(x)

    campaign = campaign_of(model, stages=(grey,), evaluated=(Watching().eval(),), batch=N)
    run_campaign(campaign)
    clean = campaign.split.floats(result.clean[0])
    assert (seen[-1] - clean).abs().max() <= 0.01 + 1e-6
    assert seen[-1].min() >= 0
    assert seen[-1].max() <= 1


def test_an_attack_is_not_believed():
    """It says nothing of success: candidates equal to the image break nothing."""
    idle = Stage("idle", Calling(lambda images: images), Threat(EPS))
    result = run_campaign(campaign_of(stages=(idle,)))
    assert torch.equal(result.robust[0, 0], result.clean[0])


def test_logits_that_are_no_numbers_are_right_for_nobody():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.constant_(model[1].weight, float("nan"))
    assert predictions(model, torch.rand(4, 1, 4, 4)).tolist() == [-1] * 4


# --- killed and taken up -----------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(1, 8))
def test_a_killed_campaign_ends_with_the_same_figures(tmp_path, after):
    state, calls = tmp_path / "state", []
    model = network()
    whole = run_campaign(campaign_of(model))

    def dying(images):
        if len(calls) == after:
            raise Killed
        calls.append(len(images))

    campaign = campaign_of(model)
    mortal = dataclasses.replace(campaign, stages=tuple(before(stage, dying) for stage in campaign.stages))
    with pytest.raises(Killed):
        run_campaign(mortal, state=state)
    assert state.is_file()
    assert not list(tmp_path.glob(".*.tmp"))
    done = sum(len(batches) for batches in json.loads(state.read_text())["stages"].values())
    assert done == after
    again = run_campaign(campaign, state=state)
    same(again, whole)
    assert again.resumed == after
    same(run_campaign(mortal, state=state), whole)  # the caller may be killed before it has written the result


def test_a_state_of_something_else_is_not_taken_up(tmp_path):
    state = tmp_path / "state"
    state.write_text(json.dumps({"identity": "another", "stages": {}}))
    with pytest.raises(InputError, match="another evaluation"):
        run_campaign(campaign_of(), state=state)
    state.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        run_campaign(campaign_of(), state=state)


# --- several processes -------------------------------------------------------------------------------------------


def _worker(rank, folder, port, queue):
    import os

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with torchrun_ranks() as ranks:
        made = []
        campaign = campaign_of()
        counting = tuple(before(stage, lambda images: made.append(len(images))) for stage in campaign.stages)
        result = run_campaign(
            dataclasses.replace(campaign, stages=counting), state=Path(folder) / f"s{rank}", ranks=ranks
        )
        queue.put((rank, ranks.writes, made, result.robust.tolist()))


def test_two_processes_share_the_batches_and_find_the_same(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_worker, args=(rank, str(tmp_path), port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict((item[0], item[1:]) for item in (queue.get(timeout=60) for _ in processes))
    for process in processes:
        process.join(60)
    whole = run_campaign(campaign_of())
    assert found[0][0]
    assert not found[1][0]
    for _, made, held in found.values():
        assert held == whole.robust.tolist()
        assert made, "each process has made some of the candidates"
    assert sum(found[0][1]) + sum(found[1][1]) == int(whole.attacked.sum())


def test_one_process_alone_is_the_writer():
    with torchrun_ranks() as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.gather("x") == ["x"]


# --- what is recorded --------------------------------------------------------------------------------------------


def test_the_record_says_which_attack_broke_which_image():
    clean = torch.tensor([True, True, True, False, True])
    held = torch.tensor([[True, False, True, False, True], [True, False, False, False, True]])
    result = CampaignResult(clean[None], held[:, None], torch.ones(2, 5, dtype=torch.bool), (0, 2), 0)
    results, outcomes = stage_results((pgd_stage("first", 1), pgd_stage("second", 2)), result)
    assert outcomes == ("robust", "first", "second", "clean", "robust")
    assert [(s.attacked, s.broken, s.outside) for s in results] == [(4, 1, 0), (3, 1, 2)]
    assert [stage.cumulative for stage in results] == [accuracy(3, 5), accuracy(2, 5)]
    assert results[1].settings == {"steps": 2, "restarts": 1, "random_start": True, "last": False}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda images: 1 / 0, r"attack 'own' failed \(ZeroDivisionError"),
        (lambda images: images[:1], r"must return torch.float32 \(4, 1, 4, 4\), it returned torch.float32 \(1,"),
        (lambda images: images.double(), "it returned torch.float64"),
        (lambda images: None, "it returned NoneType"),
    ],
)
def test_an_attack_of_the_user_s_that_fails_is_one_error(function, says):
    with pytest.raises(InputError, match=says):
        run_campaign(campaign_of(stages=(Stage("own", Calling(function), Threat(EPS)),)))
