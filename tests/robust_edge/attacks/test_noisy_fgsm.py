"""N-FGSM written out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.pgd import craft
from robust_edge.config.training import AttackConfig
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError

pytestmark = pytest.mark.quick


def test_one_step_of_eps_from_noise_of_two_eps_without_projection():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))
    images, labels, eps = torch.rand(6, 1, 4, 4), torch.arange(6) % 3, 0.1
    attack = AttackConfig(method="n-fgsm", steps=1).pgd(4)
    found = craft(model, images, labels, attack, Threat(eps), torch.Generator().manual_seed(1))

    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    start = (images + 2 * eps * noise).clamp(0, 1).requires_grad_(True)
    gradient = torch.autograd.grad(functional.cross_entropy(model(start), labels), start)[0]
    assert torch.allclose(found, (start + eps * gradient.sign()).detach().clamp(0, 1))
    assert eps < (found - images).abs().max() <= 3 * eps + 1e-6


def test_several_steps_are_refused():
    with pytest.raises(InputError, match=r"attack.steps is 10, but .*takes one step; set attack.steps=1, or .*pgd"):
        AttackConfig(method="n-fgsm", steps=10)
