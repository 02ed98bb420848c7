"""Equations (7) to (9) by hand, by finite differences, and against brute force on small problems."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from robust_edge.pruning import admm
from robust_edge.pruning.schemes.irregular import Irregular

DOUBLE = torch.float64
project_irregular = Irregular().project


def one(*values):
    return {"w": torch.tensor(values, dtype=DOUBLE)}


def parameters(weights):
    return {name: nn.Parameter(weight.clone()) for name, weight in weights.items()}


def test_start_is_the_projection_and_a_zero_dual():
    state = admm.init(one(3.0, -1.0, 2.0, 0.5), project_irregular, 0.5, 0.1)
    assert state.target["w"].tolist() == [3.0, 0.0, 2.0, 0.0]
    assert state.dual["w"].tolist() == [0.0] * 4
    assert state.rho == 0.1
    assert state.dual_residual == 0.0


def test_two_turns_by_hand():
    state = admm.init(one(3.0, -1.0, 2.0, 0.5), project_irregular, 0.5, 0.5)
    # turn 1: the optimiser moved θ to (1, -2, 2, 0.5)
    state = admm.step(state, one(1.0, -2.0, 2.0, 0.5), project_irregular, 0.5)
    # u = 0 + 0.5 (θ - (3, 0, 2, 0)) = (-1, -1, 0, 0.25);  θ + u/ρ = (-1, -4, 2, 1)
    assert state.dual["w"].tolist() == [-1.0, -1.0, 0.0, 0.25]
    assert state.target["w"].tolist() == [0.0, -4.0, 2.0, 0.0]
    # θ' moved by (-3, -4, 0, 0), length 5, its norm is √20
    assert state.dual_residual == pytest.approx(0.5 * 5 / 20**0.5)
    # turn 2 with ρ growing to 1: u uses the old ρ, the projection the new one
    state = admm.step(state, one(1.0, -2.0, 0.0, 2.0), project_irregular, 0.5, rho_growth=2.0, rho_max=10.0)
    # u = (-1, -1, 0, .25) + 0.5 ((1, -2, 0, 2) - (0, -4, 2, 0)) = (-.5, 0, -1, 1.25);  θ + u/1 = (.5, -2, -1, 3.25)
    assert state.dual["w"].tolist() == [-0.5, 0.0, -1.0, 1.25]
    assert state.target["w"].tolist() == [0.0, -2.0, 0.0, 3.25]
    assert state.rho == 1.0


def test_rho_stops_at_its_cap():
    state = admm.init(one(1.0, 2.0), project_irregular, 0.5, 0.5)
    for expected in (0.65, 0.8, 0.8):
        state = admm.step(state, one(1.0, 2.0), project_irregular, 0.5, rho_growth=1.3, rho_max=0.8)
        assert state.rho == pytest.approx(expected)


def test_residuals_are_relative_distances():
    state = admm.init(one(3.0, -4.0, 12.0), project_irregular, 1 / 3, 0.1)
    found = admm.residuals(state, one(3.0, -4.0, 12.0))
    assert found.primal == pytest.approx(5 / 13)
    assert found.dual == 0.0
    assert admm.residuals(state, state.target).primal == 0.0


def penalty(state, weights):
    """<u, θ-θ'> + ρ/2 ‖θ-θ'‖², written out from Eq. (8)."""
    return sum(
        float((state.dual[n] * (w - state.target[n])).sum() + state.rho / 2 * ((w - state.target[n]) ** 2).sum())
        for n, w in weights.items()
    )


def some_state(seed=0, rho=0.7):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (2, 3), "b": (4,)}
    weights, target, dual = (
        {name: torch.randn(shape, generator=generator, dtype=DOUBLE) for name, shape in shapes.items()}
        for _ in range(3)
    )
    return weights, admm.AdmmState(target, dual, rho, 0.0)


def test_penalty_gradient_is_that_of_the_penalty_by_finite_differences():
    weights, state = some_state()
    trained = parameters(weights)
    for weight in trained.values():
        weight.grad = torch.zeros_like(weight)
    admm.add_penalty_gradient(state, trained)
    step = 1e-6
    for name, weight in weights.items():
        for index in itertools.product(*map(range, weight.shape)):
            moved = {key: value.clone() for key, value in weights.items()}
            moved[name][index] += step
            up = penalty(state, moved)
            moved[name][index] -= 2 * step
            slope = (up - penalty(state, moved)) / (2 * step)
            assert float(trained[name].grad[index]) == pytest.approx(slope, abs=1e-7)


def test_penalty_adds_to_the_gradient_of_the_loss_and_never_grows():
    weights, state = some_state()
    trained = parameters(weights)
    seen = []
    for _ in range(3):
        for weight in trained.values():
            weight.grad = None
        sum(weight.sum() for weight in trained.values()).backward()
        admm.add_penalty_gradient(state, trained)
        seen.append({name: weight.grad.clone() for name, weight in trained.items()})
    for name in weights:
        expected = 1 + state.dual[name] + state.rho * (weights[name] - state.target[name])
        assert all(torch.allclose(gradients[name], expected, atol=1e-15) for gradients in seen)


def test_a_gradient_that_is_not_there_is_a_programming_error():
    weights, state = some_state()
    with pytest.raises(ValueError, match="after backward"):
        admm.add_penalty_gradient(state, parameters(weights))


def test_state_is_detached_from_the_graph_and_from_the_weights():
    trained = parameters(one(3.0, -1.0, 2.0, 0.5))
    state = admm.init(trained, project_irregular, 0.5, 0.1)
    for _ in range(2):
        state = admm.step(state, trained, project_irregular, 0.5)
        for tensor in (*state.target.values(), *state.dual.values()):
            assert not tensor.requires_grad
            assert tensor.grad_fn is None
    kept = state.target["w"].clone()
    with torch.no_grad():
        trained["w"].zero_()
    assert torch.equal(state.target["w"], kept)


def test_a_step_leaves_the_old_state_as_it_was():
    weights, state = some_state()
    before = {name: (state.target[name].clone(), state.dual[name].clone()) for name in weights}
    admm.step(state, weights, project_irregular, 0.5)
    assert all(torch.equal(state.target[n], t) and torch.equal(state.dual[n], u) for n, (t, u) in before.items())


def test_state_holds_two_copies_of_the_weights_and_no_more():
    weights = {"a": torch.randn(20, 30), "b": torch.randn(50)}
    state = admm.init(weights, project_irregular, 0.1, 0.1)
    for _ in range(3):
        state = admm.step(state, weights, project_irregular, 0.1)
    storages = {}
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        for tensor in value.values() if isinstance(value, dict) else ():
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    assert sum(storages.values()) == 2 * sum(weight.nbytes for weight in weights.values())


def solve_by_brute_force(matrix, values, k):
    """Least squares over every support of k columns."""
    best, solution = float("inf"), None
    for support in itertools.combinations(range(matrix.shape[1]), k):
        columns = matrix[:, list(support)]
        fit = torch.linalg.lstsq(columns, values[:, None]).solution[:, 0]
        loss = float(((columns @ fit - values) ** 2).sum() / 2)
        if loss < best:
            best, solution = loss, (support, fit)
    return best, solution


@pytest.mark.parametrize("seed", range(6))
def test_admm_finds_the_best_sparse_least_squares_fit(seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(30, 8, generator=generator, dtype=DOUBLE)
    truth = torch.tensor([2.0, 0.0, 0.0, -1.5, 0.0, 1.0, 0.0, 0.0], dtype=DOUBLE)
    values = matrix @ truth + 0.1 * torch.randn(30, generator=generator, dtype=DOUBLE)
    best, (support, fit) = solve_by_brute_force(matrix, values, 3)

    weights = {"w": nn.Parameter(torch.zeros(8, dtype=DOUBLE))}
    optimizer = torch.optim.SGD(weights.values(), lr=0.01)
    state = admm.init(weights, project_irregular, 3 / 8, 5.0)
    for count in range(1, 1501):
        optimizer.zero_grad()
        (((matrix @ weights["w"] - values) ** 2).sum() / 2).backward()
        admm.add_penalty_gradient(state, weights)
        optimizer.step()
        if count % 5 == 0:
            state = admm.step(state, weights, project_irregular, 3 / 8)
    found = state.target["w"]
    assert tuple(found.nonzero().squeeze(1).tolist()) == support
    assert torch.allclose(found[list(support)], fit, atol=1e-4)
    assert float(((matrix @ found - values) ** 2).sum() / 2) == pytest.approx(best, rel=1e-4)
    assert admm.residuals(state, weights).primal < 1e-4
    assert state.dual_residual < 1e-3
