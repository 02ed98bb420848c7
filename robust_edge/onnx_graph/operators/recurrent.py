"""Recurrent layers: of each direction the sequence is read step by step, as ONNX defines it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from robust_edge.onnx_graph.operators.node import Inputs, Node, optional_input, refuse

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Tensor, Tensor, Tensor], State]


def lstm(node: Node, inputs: Inputs) -> tuple[Tensor, ...]:
    """Gates i, o, f, c; without peepholes."""
    if optional_input(inputs, 7) is not None:
        raise ValueError("peepholes are not covered")
    refuse(node, input_forget=0)
    return _recurrent(node, inputs, 4, 2, _lstm_step)


def _lstm_step(x: Tensor, state: State, weight: Tensor, recurrence: Tensor, bias: Tensor) -> State:
    h, c = state
    own, own_bias = bias.chunk(2)
    i, o, f, g = (x @ weight.t() + h @ recurrence.t() + own + own_bias).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(node: Node, inputs: Inputs) -> tuple[Tensor, ...]:
    """Gates z, r, h; the reset gate before or after the recurrent product."""
    after = bool(node.get("linear_before_reset", 0))

    def step(x: Tensor, state: State, weight: Tensor, recurrence: Tensor, bias: Tensor) -> State:
        (h,) = state
        own, own_bias = bias.chunk(2)
        z, r, g = functional.linear(x, weight, own).chunk(3, -1)
        (rz, rr, rg), (bz, br, bg) = recurrence.chunk(3), own_bias.chunk(3)
        z, r = torch.sigmoid(z + functional.linear(h, rz, bz)), torch.sigmoid(r + functional.linear(h, rr, br))
        inner = r * functional.linear(h, rg, bg) if after else functional.linear(r * h, rg, bg)
        return ((1 - z) * torch.tanh(g + inner) + z * h,)

    return _recurrent(node, inputs, 3, 1, step)


def rnn(node: Node, inputs: Inputs) -> tuple[Tensor, ...]:
    """One gate, through tanh or ReLU."""
    names = [name.decode() if isinstance(name, bytes) else name for name in node.get("activations", ["Tanh"])]
    if {*names} - {"Tanh", "Relu"} or len({*names}) > 1:
        raise ValueError(f"activations {names} are not covered")
    function = torch.tanh if names[0] == "Tanh" else torch.relu

    def step(x: Tensor, state: State, weight: Tensor, recurrence: Tensor, bias: Tensor) -> State:
        own, own_bias = bias.chunk(2)
        return (function(functional.linear(x, weight, own) + functional.linear(state[0], recurrence, own_bias)),)

    return _recurrent(node, inputs, 1, 1, step)


def _recurrent(node: Node, inputs: Inputs, gates: int, states: int, step: Step) -> tuple[Tensor, ...]:
    """Outputs (T, directions, N, H) of all steps, then the last state or states, each (directions, N, H).

    Args:
        node: the layer.
        inputs: x (T, N, I), W (directions, gates × H, I), R (directions, gates × H, H), and, optional, the biases
            (directions, 2 × gates × H), lengths, and the initial states.
        gates: number of gates.
        states: number of states.
        step: one step of one direction.
    """
    if node.get("layout", 0) or optional_input(inputs, 4) is not None or node.get("clip", None) is not None:
        raise ValueError("only whole sequences, the first axis being time, without clipping are covered")
    if gates > 1 and node.get("activations", None) is not None:
        raise ValueError("activations of its own are not covered")
    x, weights, recurrences = inputs[:3]
    directions, size = len(weights), recurrences.shape[-1]
    biases = optional_input(inputs, 3)
    biases = x.new_zeros(directions, 2 * gates * size) if biases is None else biases
    given = [optional_input(inputs, 5 + k) for k in range(states)]
    results, ends = [], []
    for d in range(directions):
        backwards = d == 1 or node.get("direction", "forward") == "reverse"
        state: State = tuple(x.new_zeros(x.shape[1], size) if item is None else item[d] for item in given)
        outputs = []
        for row in reversed(x.unbind(0)) if backwards else x.unbind(0):
            state = step(row, state, weights[d], recurrences[d], biases[d])
            outputs.append(state[0])
        results.append(torch.stack(outputs[::-1] if backwards else outputs))
        ends.append(state)
    return torch.stack(results, 1), *(torch.stack(part) for part in zip(*ends, strict=True))
