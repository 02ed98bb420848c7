"""Two processes train one network: against one process on the same batches, and against each other."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from robust_edge.config.settings import resolve
from robust_edge.data import Split
from robust_edge.int8.simulation import Simulation
from robust_edge.models import ModelSpec, Normalized
from robust_edge.parallel.ranks import Ranks, torchrun_ranks
from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress, resume
from robust_edge.training.epoch import train_epoch
from robust_edge.training.learner import Learner
from robust_edge.training.schedules import schedules
from robust_edge.training.synchrony import WHOLE_BATCH, RankShare, check_batch, check_same, replicate, sum_over_ranks
from robust_edge_exporters.native.ir import Weighted
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError
from tests.traced import traced

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
WORLD = 2
EPOCHS = 3


def network(*, batchnorm, seed=0):
    torch.manual_seed(seed)
    norm = [nn.BatchNorm2d(6)] if batchnorm else []
    layers = [nn.Conv2d(1, 6, 3), *norm, nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)]
    found = Normalized(nn.Sequential(*layers), [0.5], [0.25])
    found.spec = ModelSpec(arch="small_cnn", shape=(1, 4, 4), classes=tuple("abc"), mean=(0.5,), std=(0.25,))
    return found


def split_of(count=28):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, 3, (count,), generator=generator))


RECIPE = {"training.loss": "trades", "awp.gamma": 0.05, "awp.warmup": 0, "averaging.decay": 0.9}


def train(*, batchnorm, ranks, flags=None):
    """Three epochs over batches of 9, 9 and 10: ADMM and masked phase, every augmentation; rank 1 begins elsewhere."""
    config = resolve(
        flags={
            "training.epochs": EPOCHS,
            "training.batch_size": 9,
            "attack.steps": 3,
            "pruning.keep": 0.4,
            "admm.rho": 0.05,
            "data.augment": ["flip", "rotate", "shift"],
            **(flags or {}),
        }
    )
    plan, model = schedules(config), network(batchnorm=batchnorm, seed=ranks.rank)
    placed = replicate(traced(model, (1, 4, 4)), torch.device("cpu"), ranks)
    learner = Learner(placed, config, plan, config.pruning.build(placed, (1, 4, 4)), ranks)
    results = []
    for epoch in range(EPOCHS):
        results.append(train_epoch(learner, split_of(), plan, epoch))
        check_same(learner.state(), ranks)
    return learner.model.state_dict(), results


def integers(ranks):
    """The weights and biases with which this rank computes each batch of a run in 8 bits."""
    flags = {"training.quantize": "int8", "training.quantize_share": 1.0, "attack.eps": 0.0}
    found, forward = [], Simulation.forward

    def noted(self, images):
        found.append(
            [op.weight.tobytes() + op.bias.tobytes() for op in self.integers().graph.ops if isinstance(op, Weighted)]
        )
        return forward(self, images)

    Simulation.forward = noted
    try:
        train(batchnorm=True, ranks=ranks, flags=flags)
    finally:
        Simulation.forward = forward
    return found


def differing(ranks):
    """What `check_same` says when one bit of one rank differs."""
    state = {"model": {"a": torch.zeros(3), "b": torch.ones(2, 2)}, "masks": None, "admm": {"rho": 0.1}}
    check_same(state, ranks)
    if ranks.rank == 1:
        state["model"]["b"][0, 0] += 1e-7
    try:
        check_same(state, ranks)
    except RobustEdgeError as error:
        return str(error)
    return None


def averaged(ranks):
    """Gradients and running statistics of rank r are r + 1; rank 0 holds 3/4 of the batch."""
    layer = nn.BatchNorm1d(2)
    layer.weight.grad, layer.running_mean = torch.full((2,), ranks.rank + 1.0), torch.full((2,), ranks.rank + 1.0)
    share = RankShare((0.75, 0.25)[ranks.rank], ranks)
    share.average(layer)
    return layer.weight.grad.tolist(), layer.running_mean.tolist(), share.mean(ranks.rank + 1.0)


def whole_run():
    """Digits and small_cnn, which has batch-norm; one epoch before the hard projection and one after."""
    flags = {"data.limit_train": 100, "data.limit_test": 20, "training.epochs": 2, "attack.steps": 1, "threads": 1}
    return resolve(preset="quick", flags=flags | {"device": "cpu"})


class Ended(BaseException):
    """What a process does when it is asked to end."""


def left_and_resumed(path, ranks):
    """Rank 1 alone is asked to end after the first batch of two; all of them do, and go on later."""

    def end(number, frame):
        raise Ended

    def ask(done, total, text):
        if ranks.rank == 1 and done == 1:
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        compress(whole_run(), path, progress=ask, ranks=ranks)
    except (Ended, SystemExit) as error:
        ended = type(error).__name__
    signal.signal(signal.SIGTERM, before)
    batches = open_run(path).read_unfinished()["part"]["batches"]
    resume(path, ranks=ranks)
    return ended, batches


def _worker(rank, port, file):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with torchrun_ranks() as ranks:
        found = {
            "plain": train(batchnorm=False, ranks=ranks),
            "batchnorm": train(batchnorm=True, ranks=ranks),
            "recipe": train(batchnorm=False, ranks=ranks, flags=RECIPE),
            "integers": integers(ranks),
            "differing": differing(ranks),
            "averaged": averaged(ranks),
            "broadcast": ranks.broadcast(lambda: f"from {ranks.rank}"),
        }
        compress(whole_run(), file.with_name("run"), ranks=ranks)
        found["left"] = left_and_resumed(file.with_name("left"), ranks)
        torch.save(found, file)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What two processes found, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("ranks")
    files = [folder / f"{rank}.pt" for rank in range(WORLD)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_worker, args=(rank, port, files[rank])) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WORLD
    return [{**torch.load(file, weights_only=False), "run": open_run(folder / "run")} for file in files]


@pytest.mark.parametrize(("kind", "flags"), [("plain", {}), ("recipe", RECIPE)])
def test_two_ranks_are_one_rank_on_the_same_batches(both, kind, flags):
    weights, results = train(batchnorm=False, ranks=Ranks(), flags=flags)
    for name, tensor in both[0][kind][0].items():
        assert torch.allclose(tensor, weights[name], atol=1e-5), name
    for two, one in zip(both[0][kind][1], results, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-4)
        assert two.robust_accuracy == pytest.approx(one.robust_accuracy)
        assert two.nonzero == one.nonzero
        assert (two.primal_residual, two.rho) == (pytest.approx(one.primal_residual, rel=1e-3), one.rho)


def test_the_ranks_hold_one_network(both):
    for kind in ("plain", "batchnorm", "recipe"):
        for name, tensor in both[0][kind][0].items():
            assert torch.equal(tensor, both[1][kind][0][name]), name


def test_ranks_compute_in_the_same_integers(both):
    """Of statistics that follow the whole batch; else 8 bits might become too few on one rank alone, and the others
    would wait for it."""
    assert both[0]["integers"] == both[1]["integers"]
    assert len(both[0]["integers"]) == 3 * 2  # batches of the masked epochs
    assert len(set(map(tuple, both[0]["integers"]))) > 1


def test_batch_norm_on_cpu_ranks_sees_each_part_alone(both):
    """SyncBatchNorm needs a GPU: on CPUs the weights depend on how many ranks share a batch, by less than training."""
    weights, _ = train(batchnorm=True, ranks=Ranks())
    before = network(batchnorm=True).state_dict()
    apart = (both[0]["batchnorm"][0]["network.0.weight"] - weights["network.0.weight"]).abs().max()
    moved = (weights["network.0.weight"] - before["network.0.weight"]).abs().max()
    assert 1e-5 < apart < moved


def test_one_bit_that_differs_is_noticed_on_every_rank_and_named(both):
    for found in both:
        assert found["differing"].startswith("rank 1 and rank 0 differ in model;")


def test_gradients_and_statistics_are_weighted_by_the_rank_s_part(both):
    for found in both:
        assert found["averaged"] == ([1.25, 1.25], [1.25, 1.25], 1.25)


def test_one_rank_writes_a_whole_run(both):
    run = both[0]["run"]
    assert run.checkpoint().sparsity.nonzero == 9373
    log = (run.path / "run.log").read_text().splitlines()
    assert [line.split()[1] for line in log if line.startswith("epoch ")] == ["1/2", "2/2"]
    assert [row.epoch for row in run.metrics()] == [1, 2]
    assert not list(run.path.glob(".*"))


def test_ranks_end_together_and_go_on_to_the_same_bytes(both):
    assert [found["left"] for found in both] == [("SystemExit", 1), ("Ended", 1)]
    path, name = both[0]["run"].path, "checkpoint.safetensors"
    assert (path.with_name("left") / name).read_bytes() == (path / name).read_bytes()


def test_all_ranks_get_the_value_of_the_first(both):
    assert [found["broadcast"] for found in both] == ["from 0", "from 0"]


def test_one_process_alone_takes_no_detour():
    model = network(batchnorm=True)
    assert replicate(model, torch.device("cpu"), Ranks()) is model
    WHOLE_BATCH.average(model)
    assert WHOLE_BATCH.mean(0.3) == 0.3
    check_same({"model": model.state_dict()}, Ranks())
    assert sum_over_ranks(torch.tensor(3.0), Ranks()) == 3


def test_a_batch_that_is_too_small_for_the_ranks():
    check_batch(16, Ranks(0, 8))
    with pytest.raises(InputError, match=r"it is 15, 8 ranks need at least 16"):
        check_batch(15, Ranks(0, 8))


def launch(*arguments, cwd):
    """`torchrun -m robust_edge` with two processes."""
    return run_ranks("-m", "robust_edge", *arguments, cwd=cwd)


def run_ranks(*arguments, cwd):
    """`torchrun` with two processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [*TORCHRUN, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=180, check=False,
    )  # fmt: skip


MODEL = """
from torch import nn

def build(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, num_classes)
    )
"""


@pytest.fixture
def own_model(tmp_path, monkeypatch):
    """A network without batch-norm, for this process and for those it starts."""
    (tmp_path / "own_ranks_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_ranks_model:build"


def test_torchrun_resumes_as_one_process_would(tiny, own_model, tmp_path):
    """The same weights within float tolerance; files and result come from rank 0 alone."""
    run, alone, config = tmp_path / "run", tmp_path / "alone", tiny({"arch": own_model})
    compress(config, alone)

    def stop(done, total, text):
        if done == 6:  # of four batches per epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(config, run, progress=stop)
    done = launch("compress", "--resume", "--json", "-o", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((run / "checkpoint.json").read_text())
    assert [row.epoch for row in open_run(run).metrics()] == [1, 2, 3]
    written, expected = (safetensors.torch.load_file(path / "checkpoint.safetensors") for path in (run, alone))
    for name, tensor in expected.items():
        assert torch.allclose(written[name], tensor, atol=1e-4), name


def test_an_error_of_one_rank_ends_all_with_one_message(tiny_flags, tmp_path):
    """Rank 0 waits for rank 1, which cannot build its network."""
    failing = MODEL.replace("    return", "    assert os.environ['RANK'] == '0', 'no'\n    return")
    (tmp_path / "own_ranks_failing.py").write_text("import os\n" + failing)
    done = launch("compress", *tiny_flags, "--arch", "own_ranks_failing:build", "-o", tmp_path / "run", cwd=tmp_path)
    assert done.returncode != 0
    ours = done.stderr.partition("Traceback")[0]  # from there on torchrun's own report
    said = [line for line in ours.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    assert "model 'own_ranks_failing:build' failed (AssertionError: no)" in said[0]


LEAVING = """
import pathlib
import torch
from torch.nn.parallel import DistributedDataParallel
from robust_edge.parallel.ranks import torchrun_ranks

def gloo():
    return [task for task in pathlib.Path("/proc/self/task").iterdir() if "gloo" in (task / "comm").read_text()]

with torchrun_ranks() as ranks:
    network = DistributedDataParallel(torch.nn.Linear(3, 1))
    network(torch.ones(2, 3)).sum().backward()
    del network
    inside = len(gloo())
pathlib.Path(f"rank{ranks.rank}").write_text(f"{inside > 0} {len(gloo())}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the threads' names from /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """A worker of gloo that drops its last tensor while the interpreter ends would abort the process."""
    script = tmp_path / "leaving.py"
    script.write_text(LEAVING)
    done = run_ranks(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(WORLD)] == ["True 0"] * WORLD
