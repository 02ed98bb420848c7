import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from robust_edge.attacks.pgd import Pgd, attack_images
from robust_edge.data import Split
from robust_edge.evaluation import accuracy as module
from robust_edge.evaluation.accuracy import accuracy, accuracy_of, attack_split
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_of_newcombe_1998_table_1(correct, images, low, high):
    found = accuracy(correct, images)
    assert found.value == correct / images
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@hypothesis.example((0, 3))  # where rounding put the lower bound above 0
@hypothesis.given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_solve_the_score_equation(case):
    """Wilson's bounds are where |p̂ - p| is 1.96 standard errors of p itself."""
    correct, images = case
    found = accuracy(correct, images)
    assert 0 <= found.low <= found.value <= found.high <= 1
    for bound in (found.low, found.high):
        if 0 < bound < 1:
            error = math.sqrt(bound * (1 - bound) / images)
            assert abs(found.value - bound) == pytest.approx(1.959964 * error, rel=1e-5, abs=1e-9)


def test_nothing_checked_is_no_result():
    with pytest.raises(InputError, match="no images"):
        accuracy(0, 0)
    empty = Split(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match="no images"):
        attack_split(linear(), empty, Pgd(steps=1), Threat(0.1))


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


@pytest.fixture
def split():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (23, 1, 4, 4), generator=generator).to(torch.uint8)
    with torch.no_grad():
        labels = linear()(images / 255).argmax(1)
    labels[::5] = (labels[::5] + 1) % 3
    return Split(images, labels)


def test_a_split_in_batches_is_the_batches_one_after_the_other(split, monkeypatch):
    monkeypatch.setattr(module, "batch_size", lambda shape, device: 10)
    attack, threat, done = Pgd(steps=3), Threat(0.05), []
    found = attack_split(linear(), split, attack, threat, seed=4, progress=lambda *row: done.append(row))
    generator = torch.Generator().manual_seed(4)
    for start in (0, 10, 20):
        chosen = slice(start, start + 10)
        part = attack_images(linear(), split.floats(chosen), split.labels[chosen], attack, threat, generator)
        assert torch.equal(found.images[chosen], part.images)
        assert torch.equal(found.robust[chosen], part.robust)
        assert torch.equal(found.clean[chosen], part.clean)
    assert done == [(10, 23), (20, 23), (23, 23)]


def test_accuracies_are_counts_of_that_attack(split):
    attack, threat = Pgd(steps=3), Threat(0.05)
    found = attack_split(linear(), split, attack, threat, seed=4)
    clean, robust = accuracy_of(found.clean), accuracy_of(found.robust)
    assert clean.correct == int(found.clean.sum()) == 18
    assert 0 < robust.correct == int(found.robust.sum()) < 18
    assert clean.images == robust.images == 23
    spec = attack.spec(threat, 4)
    assert (spec.eps, spec.steps, spec.step_size, spec.seed) == (0.05, 3, attack.alpha(threat), 4)


def test_radius_zero_gives_the_clean_accuracy_twice(split):
    found = attack_split(linear(), split, Pgd(steps=3), Threat(0.0))
    assert torch.equal(found.clean, found.robust)
