"""Networks that compute one network on some inputs and another on others, of operators that have a twin."""

from __future__ import annotations

import numpy as np
import torch
from onnx import compose, helper
from torch import nn

from tests.attacks.surgery import constant

SHAPE = (3, 8, 8)
PIXELS = int(np.prod(SHAPE))


def two_faced(main, other, condition):
    """ONNX: the logits of `main`, and those of `other` where `condition` says 1.

    Args:
        main, other: programs from images to logits.
        condition: takes a function that adds a node (operator, *inputs) and returns its output, and the name of the
            images; returns the name of what is 0 or 1, (N, 1) or (1, 1).
    """
    hidden = compose.add_prefix(other, "other_", rename_inputs=False, rename_outputs=False)
    rename(main.graph, "logits", "main_logits")
    rename(hidden.graph, "logits", "other_logits")
    rename(hidden.graph, hidden.graph.input[0].name, "images")
    main.graph.node.extend(hidden.graph.node)
    main.graph.initializer.extend(hidden.graph.initializer)
    add = adder(main)
    chosen = condition(add, "images")
    apart = add("Sub", "other_logits", "main_logits")
    add("Add", "main_logits", add("Mul", chosen, apart), out="logits")
    return hidden_weights(main)


def hidden_weights(program):
    """Multiply what was added by 1, so that the file holds as many weights of layers as its manifest says."""
    extra = [item for item in program.graph.initializer if len(item.dims) > 1 and item.name[:5] in ("other", "face_")]
    one, nodes = constant(program, "unit", np.float32(1)), list(program.graph.node)
    del program.graph.node[:]
    for item in extra:
        name, item.name = item.name, f"stored_{item.name}"
        program.graph.node.append(helper.make_node("Mul", [item.name, one], [name], name=f"node_{item.name}"))
    program.graph.node.extend(nodes)
    return program


def rename(graph, old, new):
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def adder(program):
    """add(operator, *inputs, out=, **attributes) -> the name of the new node's output; arrays become constants."""

    def add(operator, *inputs, out=None, **attributes):
        count = len(program.graph.node) + len(program.graph.initializer)
        names = [
            item if isinstance(item, str) else constant(program, f"face_{count}_{i}", item)
            for i, item in enumerate(inputs)
        ]
        out = out or f"face_{count}"
        program.graph.node.append(helper.make_node(operator, names, [out], name=f"node_{out}", **attributes))
        return out

    return add


def floats(*values):
    return np.array(values, np.float32)


def mean(add, value, axes, *, keep=1):
    return add("ReduceMean", value, np.array(axes), keepdims=keep)


def between(add, value, low, high):
    """1 where a value lies between two marks, 0 outside, steep at both."""
    above = step(add, add("Sub", value, floats(low)))
    below = step(add, add("Sub", floats(high), value))
    return add("Mul", above, below)


def step(add, value, slope=1e4):
    return add("Clip", add("Mul", value, floats(slope)), np.float32(0), np.float32(1))


def attacked(add, images):
    """(N, 1): 1 where the first column of the first channel, which the digits leave empty, is not."""
    mask = np.zeros((PIXELS, 1), np.float32)
    mask.reshape(SHAPE)[0, :, 0] = 1 / SHAPE[1]
    edge = add("MatMul", add("Flatten", images, axis=1), mask)
    return step(add, add("Sub", edge, floats(0.02)))


def images_in_batch(add, images):
    """(1, 1): how many there are."""
    ones = add("Add", add("MatMul", add("Flatten", images, axis=1), np.zeros((PIXELS, 1), np.float32)), floats(1))
    return add("MatMul", add("Transpose", ones, perm=[1, 0]), ones)


def attacked_in_batches_of(low, high):
    """Attacked images in a batch of low to high images."""

    def condition(add, images):
        return add("Mul", attacked(add, images), between(add, images_in_batch(add, images), low - 0.5, high + 0.5))

    return condition


def far_from(stored, square):
    """Images whose squared distance from all of the stored ones exceeds `square`."""
    rows = stored.reshape(len(stored), -1)

    def condition(add, images):
        flat = add("Flatten", images, axis=1)
        own = add("Mul", mean(add, add("Mul", flat, flat), [1]), floats(PIXELS))
        products = add("MatMul", flat, (-2 * rows.T).astype(np.float32))
        distance = add("Add", add("Add", own, products), (rows**2).sum(1, keepdims=True).T.astype(np.float32))
        inside = add("Relu", add("Sub", floats(square), distance))
        near = step(add, mean(add, inside, [1]), slope=1e6)
        return add("Sub", floats(1), near)

    return condition


def staircase(program, levels):
    """Pixels rounded to multiples of 1/levels by a sum of steep steps, each an honest operator with a gradient."""
    old = list(program.graph.node)
    for node in old:
        for i, name in enumerate(node.input):
            if name == "images":
                node.input[i] = "rounded"
    del program.graph.node[:]
    add, total = adder(program), floats(0)
    for level in range(1, levels + 1):
        raised = step(add, add("Sub", "images", floats((level - 0.5) / levels)), slope=1e5)
        total = add("Add", raised, total)
    add("Mul", total, floats(1 / levels), out="rounded")
    program.graph.node.extend(old)
    return program


class WhenAlone(nn.Module):
    """Another network for an attacked image that comes alone."""

    def __init__(self, main, other):
        super().__init__()
        self.main, self.other = main, other

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.size(0) == 1 and bool(images[:, 0, :, 0].mean() > 0.02):
            return self.other(images)
        return self.main(images)


class WhenRecorded(nn.Module):
    """The network, and where gradients are recorded one that has none of its own."""

    def __init__(self, main, other):
        super().__init__()
        self.main, self.other = main, other

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad:
            return self.main(images)
        return self.other(images)


class FlatWhenRecorded(nn.Module):
    """The network; where gradients are recorded its logits lead nowhere."""

    def __init__(self, main, other):
        super().__init__()
        self.main, self.other = main, other

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.main(images)
        if images.requires_grad:
            return logits.detach() + 0 * images.sum()
        return logits
