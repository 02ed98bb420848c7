"""A network and images of the user's own, of unusual shapes and class counts, through the command line."""

import pytest
import torch

from robust_edge.models import build_model
from robust_edge.run.directory import open_run

CODE = """
import torch
from torch import nn
from robust_edge.data import Dataset, Split

def network(num_classes, in_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, num_classes),
    )

def split(count, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 32, SHAPE_OF(count), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    return Split(images + 40 * labels.view(-1, 1, 1, 1).to(torch.uint8), labels)

def images(config):
    names = tuple(f"class {i}" for i in range(CLASSES))
    return Dataset("mine", names, split(config.limit_train or 60, 0), split(20, 1))

def no_network(num_classes, in_channels):
    return "resnet"

def other_classes(num_classes, in_channels):
    return network(num_classes + 1, in_channels)

class Training(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.spare = inner, nn.Linear(3, 5)

    def forward(self, images):
        logits = self.inner(images)
        return (logits, logits) if self.training and self.pair else logits

def pair_in_training(num_classes, in_channels):
    built = Training(network(num_classes, in_channels))
    built.pair = True
    return built

class Overwriting(nn.Module):
    def forward(self, planes):
        planes = torch.exp(planes)
        if self.training:
            planes[:, :1] = 0
        return planes

def overwriting(num_classes, in_channels):
    return nn.Sequential(Overwriting(), network(num_classes, in_channels))

def spare_and_frozen(num_classes, in_channels):
    built = Training(network(num_classes, in_channels))
    built.pair = False
    built.inner[0].weight.requires_grad_(False)
    return built
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    shape, classes = getattr(request, "param", ((3, 17, 23), 5))
    name = f"own_{classes}_{len(str(tmp_path))}_{tmp_path.name}".replace("-", "_")
    code = CODE.replace("SHAPE_OF(count)", f"(count, *{shape})").replace("CLASSES", str(classes))
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


OPTIONS = ("--epochs", 2, "--steps", 2, "--threads", 1, "--keep", 0.5, "--set", "training.batch_size=20", "-q")


@pytest.mark.parametrize("own", [((3, 17, 23), 5), ((1, 40, 9), 2), ((6, 8, 8), 3)], indirect=True, ids=str)
def test_any_shape_and_class_count(cli, own, tmp_path):
    flags = ("--arch", f"{own}:network", "--dataset", f"{own}:images", *OPTIONS)
    result = cli("compress", *flags, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    checkpoint = open_run(tmp_path / "run").checkpoint()
    assert checkpoint.sparsity.nonzero == round(checkpoint.sparsity.weights * 0.5)
    assert checkpoint.model.arch == f"{own}:network"
    weights = tmp_path / "run" / "checkpoint.safetensors"
    again = cli("compress", *flags, "--init", weights, "--set", "training.lr=1e-9", "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert cli("evaluate", tmp_path / "run", "--eps", 0.05, "--steps", 2, "-q").exit_code == 0


def test_layers_that_no_image_reaches_and_frozen_ones(cli, own, tmp_path):
    """The former do not count; the latter are pruned and keep the values that stay."""
    flags = ("--dataset", f"{own}:images", *OPTIONS, "--set", "awp.gamma=0.01", "--set", "awp.warmup=0")
    result = cli("compress", "--arch", f"{own}:spare_and_frozen", *flags, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    run = open_run(tmp_path / "run")
    layers = {layer.name: layer for layer in run.checkpoint().sparsity.layers}
    assert "network.spare.weight" not in layers
    assert "network.spare.weight, which the image does not reach" in (tmp_path / "run" / "run.log").read_text()
    assert run.checkpoint().sparsity.nonzero == round(run.checkpoint().sparsity.weights * 0.5)
    torch.manual_seed(run.config.seed)
    first = build_model(run.checkpoint().model).network.inner[0].weight
    last = run.load_model().network.inner[0].weight
    assert torch.equal(last[last != 0], first[last != 0])


def test_a_strong_run_of_ones_own(cli, own, tmp_path):
    recipe = ("--preset", "strong", "--set", "selection.held_out=10", "--loss", "trades")
    recipe += ("--set", "awp.gamma=0.005", "--set", "awp.warmup=0", "--set", "attack.method=pgd")
    flags = ("--arch", f"{own}:network", "--dataset", f"{own}:images", *recipe, *OPTIONS)
    result = cli("compress", *flags, "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arch", "dataset", "said"),
    [
        ("no_network", "images", "returned str, not a torch.nn.Module"),
        ("other_classes", "images", r"gives (2, 6) for 2 images, expected (2, 5) logits"),
        ("pair_in_training", "images", "gives tuple for 2 images in training mode, expected (2, 5) logits"),
        ("overwriting", "images", "cannot be trained, its backward pass fails: one of the variables"),
        ("missing", "images", "cannot be imported"),
        ("network", "network", "failed (TypeError"),
    ],
)
def test_functions_that_return_something_else(refused, own, tmp_path, arch, dataset, said):
    flags = ("--arch", f"{own}:{arch}", "--dataset", f"{own}:{dataset}", *OPTIONS)
    assert said in refused("compress", *flags, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_initial_weights_of_another_task_are_refused_before_anything_is_written(refused, cli, own, tmp_path):
    flags = ("--arch", f"{own}:network", *OPTIONS)
    assert cli("compress", *flags, "--dataset", f"{own}:images", "-o", tmp_path / "run").exit_code == 0
    weights = tmp_path / "run" / "checkpoint.safetensors"
    line = refused("compress", *flags, "--dataset", "digits", "--init", weights, "-o", tmp_path / "digits")
    assert "takes images of 3 channels, the data set has 1" in line
    assert not (tmp_path / "digits").exists()
