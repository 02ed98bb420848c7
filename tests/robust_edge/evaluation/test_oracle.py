import numpy as np
import pytest
import torch
from torch import nn

from robust_edge.evaluation.batch_size import batch_size
from robust_edge.evaluation.oracle import TorchOracle


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)).double()
    network[1].running_mean.uniform_(-1, 1)
    network[1].running_var.uniform_(0.5, 2)
    return network


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(5, 2, 3, 3))


LABELS = np.array([0, 1, 2, 3, 1])


def cross_entropy(model, images):
    """Sum over the images, in numpy."""
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(images)).numpy()
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(LABELS)), LABELS]).sum())


def test_gradient_by_finite_differences(model, images):
    _, gradient = TorchOracle(model).logits_and_gradient(images, LABELS)
    step = 1e-6
    for index in np.ndindex(images.shape):
        moved = images.copy()
        moved[index] += step
        up = cross_entropy(model, moved)
        moved[index] -= 2 * step
        assert gradient[index] == pytest.approx((up - cross_entropy(model, moved)) / (2 * step), abs=1e-7)


def test_logits_are_those_of_evaluation_mode_and_nothing_changes(model, images):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits, _ = TorchOracle(model).logits_and_gradient(images, LABELS)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        assert np.array_equal(logits, model.eval()(torch.from_numpy(images)).numpy())


@pytest.mark.parametrize(
    ("shape", "device", "images"),
    [
        ((1, 8, 8), "cpu", 250),
        ((3, 32, 32), "cpu", 250),
        ((3, 224, 224), "cpu", 6),
        ((3, 2000, 2000), "cpu", 1),
        ((3, 224, 224), "cuda", 250),
    ],
)
def test_large_images_are_taken_few_at_a_time_on_a_cpu(shape, device, images):
    """250 images of 224x224 would take 26 GB in a ResNet50."""
    assert batch_size(shape, torch.device(device)) == images


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_batches_do_not_matter(model, images, batch):
    whole = TorchOracle(model).logits_and_gradient(images, LABELS)
    parts = TorchOracle(model, batch=batch).logits_and_gradient(images, LABELS)
    for left, right in zip(whole, parts, strict=True):
        assert left.shape == right.shape
        assert np.allclose(left, right, atol=1e-14)
