"""Files of tensors in which sparse ones are packed: their non-zero values, and one bit per weight.

A safetensors file. In place of a packed tensor NAME it holds `NAME::values`, (n,), the non-zero values in order, and
`NAME::mask`, uint8, one bit per weight, the first in the highest bit of the first byte. The metadata entry `packed` is
a JSON object of the shapes of these tensors by name. A ResNet34 with 10% of its weights takes 11.3 MB instead of 85 MB.
Files below 1 MiB are written without packing, as are tensors that it would not make smaller.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

PACKED = "packed"
VALUES, MASK = "::values", "::mask"
PACKED_FROM = 2**20
"""The size of a file in bytes, before packing, from which it is packed."""


class TensorFile:
    """An open file of tensors, packed or not; tensors are read one at a time.

    Attributes:
        shapes: the shape of every tensor, by name.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._packed = _packed_shapes(file.metadata() or {})
        stored = list(file.keys())
        hidden = {name + part for name in self._packed for part in (VALUES, MASK)}
        plain = {name: tuple(file.get_slice(name).get_shape()) for name in stored if name not in hidden}
        if hidden - set(stored) or plain.keys() & self._packed.keys():
            raise SafetensorError("the parts of a packed tensor are missing")
        self.shapes: dict[str, tuple[int, ...]] = {**plain, **self._packed}

    def tensor(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            SafetensorError: the values, the mask and the shape of a packed tensor do not agree.
        """
        if name not in self._packed:
            found: Tensor = self._file.get_tensor(name)
            return found
        values, mask = self._file.get_tensor(name + VALUES), self._file.get_tensor(name + MASK)
        count = math.prod(self._packed[name])
        if mask.dtype != torch.uint8 or mask.shape != (-(-count // 8),) or values.ndim != 1:
            raise SafetensorError(f"{name} does not have the size of its shape")
        kept = torch.from_numpy(np.unpackbits(mask.numpy()).astype(bool))
        if kept[count:].any() or int(kept.sum()) != len(values):
            raise SafetensorError(f"{name} has {len(values)} values, its mask another number")
        whole = torch.zeros(count, dtype=values.dtype)
        try:
            whole[kept[:count]] = values
        except RuntimeError as cause:  # not every type can be assigned by a mask
            raise SafetensorError(f"{name} cannot be unpacked ({cause})") from cause
        return whole.view(self._packed[name])


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file, packed or not.

    Raises:
        SafetensorError: the file is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        yield TensorFile(file)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file, packed or not; raises as `open_tensors`."""
    with open_tensors(path) as file:
        return {name: file.tensor(name) for name in file.shapes}


def save_tensors(tensors: Mapping[str, Tensor], *, pack: bool = True) -> bytes:
    """The bytes of a file.

    Args:
        tensors: on the CPU, contiguous.
        pack: whether sparse tensors are packed, if the file is large enough.
    """
    whole = sum(tensor.nbytes for tensor in tensors.values())
    tensors = _without_sharing(tensors)
    if not pack or whole < PACKED_FROM:
        return safetensors.torch.save(dict(tensors))
    stored: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        parts = _parts(tensor)
        if sum(part.nbytes for part in parts) >= tensor.nbytes:
            stored[name] = tensor
            continue
        stored[name + VALUES], stored[name + MASK] = parts
        shapes[name] = list(tensor.shape)
    return safetensors.torch.save(stored, {PACKED: json.dumps(shapes)} if shapes else None)


def _without_sharing(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, copied where they share memory, which safetensors refuses to store."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if tensor.numel() and place in seen else tensor
        seen.add(place)
    return found


def _parts(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The non-zero values and the mask of a tensor."""
    flat = tensor.flatten()
    kept = flat != 0
    return flat[kept], torch.from_numpy(np.packbits(kept.numpy()))


def _packed_shapes(metadata: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    try:
        shapes = json.loads(metadata.get(PACKED, "{}"))
        found = {str(name): tuple(int(length) for length in shape) for name, shape in shapes.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as cause:
        raise SafetensorError(f"the metadata of packed tensors cannot be read ({cause})") from cause
    if any(length < 0 for shape in found.values() for length in shape):
        raise SafetensorError("a packed tensor has a negative length")
    return found
