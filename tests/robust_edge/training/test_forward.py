"""What the layers may compute in, and what stays float32 whatever they do."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.pgd import Pgd, craft
from robust_edge.config.settings import resolve
from robust_edge.config.training import ComputeConfig
from robust_edge.data import Split
from robust_edge.models import Normalized
from robust_edge.training.epoch import train_epoch
from robust_edge.training.forward import Forward, check_compute, fitting, place
from robust_edge.training.learner import Learner
from robust_edge.training.schedules import schedules
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError
from tests.traced import traced

SHAPE = (3, 8, 8)
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3


class Viewed(nn.Module):
    """Needs NCHW, as networks do whose convolutions are followed by `view`."""

    def forward(self, planes):
        return planes.view(len(planes), -1)


@pytest.mark.parametrize(("last", "layout"), [(Viewed, False), (nn.Flatten, True)])
def test_images_are_stored_as_nhwc_only_where_the_network_runs_on_them(last, layout):
    network, state = nn.Sequential(nn.Conv2d(3, 4, 3), last(), nn.Dropout(), nn.Linear(144, 3)), torch.get_rng_state()
    assert fitting(ComputeConfig(), network, (3, 8, 8)).channels_last is layout
    assert torch.equal(torch.get_rng_state(), state)


class Spy(nn.Module):
    """Notes the type of what passes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append((x.dtype, x.is_contiguous(memory_format=torch.channels_last)))
        return x


def network():
    torch.manual_seed(0)
    spies = Spy(), Spy()
    layers = [spies[0], nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), spies[1], nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)]
    return Normalized(nn.Sequential(*layers), [0.5] * 3, [0.25] * 3), spies


def test_fp32_computes_what_the_network_computes():
    model, _ = network()
    assert torch.equal(Forward(model, ComputeConfig(channels_last=False)).eval()(IMAGES), model(IMAGES))
    last = Forward(place(model, torch.device("cpu"), ComputeConfig()), ComputeConfig())
    assert torch.allclose(last(IMAGES), model(IMAGES), atol=1e-5)
    assert last.network is model


def test_weights_of_one_input_channel_are_channels_last_too():
    """torch finds them contiguous in both layouts; kernels choose by the strides, and round differently."""
    layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv3d(1, 2, 3))
    expected = layers[0].weight.clone().to(memory_format=torch.channels_last).stride()
    assert place(layers, torch.device("cpu"), ComputeConfig())[0].weight.stride() == expected == (9, 1, 3, 1)


@pytest.mark.parametrize("channels_last", [True, False])
def test_bf16_is_for_the_layers_alone(channels_last):
    """Pixels and normalisation come in as float32; activations are bfloat16; logits and gradients float32 again."""
    config = ComputeConfig(precision="bf16", channels_last=channels_last)
    model, (entry, inside) = network()
    forward = Forward(place(model, torch.device("cpu"), config), config)
    points = IMAGES.clone().requires_grad_(True)
    logits = forward(points)
    assert entry.seen == [(torch.float32, channels_last)]
    assert inside.seen == [(torch.bfloat16, channels_last)]
    assert logits.dtype == torch.float32
    loss = functional.cross_entropy(logits, LABELS)
    loss.backward()
    assert loss.dtype == points.grad.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.allclose(logits, network()[0](IMAGES), atol=0.05)


def test_a_bf16_attack_moves_in_float32_without_parameter_gradients():
    """Steps of a thousandth would vanish in bfloat16, whose neighbours of 0.5 are 0.004 apart."""
    config = ComputeConfig(precision="bf16")
    model, (entry, _) = network()
    asked = []
    model.register_forward_pre_hook(lambda *_: asked.append(any(p.requires_grad for p in model.parameters())))
    attack = Pgd(steps=4, step_size=0.001, random_start=False)
    attacked = craft(Forward(model, config), IMAGES, LABELS, attack, Threat(0.004), torch.Generator())
    moves = (attacked - IMAGES).abs()[(IMAGES > 0.01) & (IMAGES < 0.99)]
    assert attacked.dtype == torch.float32
    assert {kind for kind, _ in entry.seen} == {torch.float32}
    assert torch.allclose(moves, (moves * 1000).round() / 1000, atol=1e-6)
    assert 0.0035 < moves.max() <= 0.004 + 1e-6
    assert asked == [False] * 4


@pytest.mark.parametrize("flags", [{"compute.precision": "bf16"}, {"compute.channels_last": False}])
def test_an_epoch_ends_near_that_of_the_defaults(flags):
    generator = torch.Generator().manual_seed(1)
    split = Split(torch.randint(0, 256, (24, 3, 8, 8), generator=generator).to(torch.uint8), torch.arange(24) % 3)
    losses = []
    for extra in ({}, flags):
        config = resolve(flags={"training.batch_size": 8, "training.epochs": 2, "attack.steps": 2, **extra})
        plan = schedules(config)
        model = place(network()[0], torch.device("cpu"), config.compute)
        learner = Learner(traced(model, SHAPE), config, plan, config.pruning.build(model, SHAPE))
        losses.append([train_epoch(learner, split, plan, epoch).loss for epoch in range(2)])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch's own, while it imports its compiler
def test_a_compiled_network_is_the_network():
    """Without a code generator, so that no C compiler is needed: the captured graph, run as it is."""
    plain = Normalized(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), [0.5] * 3, [0.25] * 3)
    forward = Forward(plain, ComputeConfig(compile=True))
    forward.network = torch.compile(plain, backend="eager")
    assert torch.allclose(forward(IMAGES), plain(IMAGES), atol=1e-6)
    forward.eval()
    assert not plain.training
    assert set(map(id, forward.parameters())) == set(map(id, plain.parameters()))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, of its compiler's look at inputs
def test_a_compiled_network_is_not_recompiled_for_every_batch():
    """The attack's pass and the training's, each once; batch-norm's momentum differs in each of the first batches."""
    from torch._dynamo.testing import CompileCounter

    config = resolve(flags={"training.batch_size": 8, "training.epochs": 2, "attack.steps": 2, "compute.compile": True})
    split = Split(torch.randint(0, 256, (120, 3, 8, 8)).to(torch.uint8), torch.arange(120) % 3)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)]
    plan, counter = schedules(config), CompileCounter()
    model = Normalized(nn.Sequential(*layers), [0.5] * 3, [0.25] * 3)
    learner = Learner(traced(model, SHAPE), config, plan, config.pruning.build(model, SHAPE))
    learner.forward.network = torch.compile(model, backend=counter)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for epoch in range(2):
            train_epoch(learner, split, plan, epoch)
    assert counter.frame_count == 2


def test_the_most_memory_that_was_used_is_recorded(sparse_run):
    stored = json.loads((sparse_run.path / "environment.json").read_text())
    log = (sparse_run.path / "run.log").read_text().splitlines()[-1]
    assert stored["peak_memory_bytes"] > 50 << 20  # python and torch alone take more
    assert log.endswith(f"peak memory {stored['peak_memory_bytes'] >> 20} MiB")


def test_admm_costs_two_copies_of_the_prunable_weights():
    """Every tensor that the learner holds in the ADMM phase, counted by its storage; the masked phase costs one."""
    config = resolve(flags={"training.momentum": 0.0, "pruning.keep": 0.2})
    model, _ = network()
    learner = Learner(traced(model, SHAPE), config, schedules(config), config.pruning.build(model, SHAPE))
    prunable = sum(weight.numel() * weight.element_size() for weight in learner.weights.values())
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}

    def held(value):
        if isinstance(value, torch.Tensor):
            return {value.data_ptr(): value.untyped_storage().nbytes()}
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return {pointer: size for item in items for pointer, size in held(item).items()}

    def extra():
        return sum(size for pointer, size in held(learner.state()).items() if pointer not in own)

    assert extra() == 2 * prunable
    functional.cross_entropy(learner.forward(IMAGES), LABELS).backward()
    learner.update(0.2, 1)
    assert extra() == 2 * prunable
    learner.prune(0.2)
    assert extra() == prunable


def test_a_gpu_without_bfloat16_is_refused_by_the_name_of_the_setting(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    check_compute(ComputeConfig(precision="bf16"), torch.device("cpu"))
    with pytest.raises(InputError, match=r"compute\.precision bf16 needs .*, an old GPU does not; use fp32"):
        check_compute(ComputeConfig(precision="bf16"), torch.device("cuda"))
