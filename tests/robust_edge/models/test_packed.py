"""Packed files: what is written is read again, the size, and damaged files."""

import json

import hypothesis
import pytest
import safetensors.torch
import torch
from hypothesis import strategies as st
from safetensors import SafetensorError

from robust_edge.models import packed
from robust_edge.models.packed import load_tensors, open_tensors, save_tensors
from robust_edge.models.resnet import resnet34

pytestmark = pytest.mark.quick


@hypothesis.given(
    shape=st.lists(st.integers(0, 9), max_size=4), share=st.floats(0, 1), seed=st.integers(0, 99), half=st.booleans()
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory, shape, share, seed, half):
    generator = torch.Generator().manual_seed(seed)
    sparse = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < share)
    tensors = {
        "sparse": sparse.half() if half else sparse,
        "dense": torch.randn(3, 2, generator=generator),
        "count": torch.tensor(seed),
    }
    path = tmp_path_factory.mktemp("packed") / "file.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "PACKED_FROM", 0)
        path.write_bytes(save_tensors(tensors))
    found = load_tensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with open_tensors(path) as file:
        assert file.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def test_resnet34_at_ten_percent_takes_less_than_12_mb():
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in resnet34(10, 3).state_dict().items()}
    kept = {}
    for name, shape in shapes.items():
        kept[name] = torch.zeros(shape)
        if len(shape) > 1:
            kept[name].view(-1)[::10] = 1.0
        else:
            kept[name].fill_(1.0)
    assert len(save_tensors(kept)) < 12e6


def test_small_and_dense_files_are_plain_safetensors():
    small = {"a": torch.zeros(100)}
    assert save_tensors(small) == safetensors.torch.save(small)
    dense = {"a": torch.ones(packed.PACKED_FROM)}
    assert save_tensors(dense) == safetensors.torch.save(dense)


def damaged(tmp_path, *, shapes=None, **parts):
    weight = torch.zeros(packed.PACKED_FROM)
    weight[::10] = 1
    stored = safetensors.torch.load(save_tensors({"w": weight}))
    stored.update(parts)
    path = tmp_path / "file.safetensors"
    shapes = json.dumps({"w": [packed.PACKED_FROM]} if shapes is None else shapes)
    path.write_bytes(safetensors.torch.save({k: v for k, v in stored.items() if v is not None}, {"packed": shapes}))
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"w::values": torch.ones(3)},
        {"w::mask": torch.zeros(3, dtype=torch.uint8)},
        {"w::mask": torch.zeros(packed.PACKED_FROM // 8)},
        {"w::mask": None},
        {"w": torch.ones(2)},
        {"shapes": {"w": [8]}},
        {"shapes": {"w": [-1]}},
        {"shapes": {"w": "x"}},
        {"shapes": [1]},
    ],
)
def test_damaged_files_are_refused(tmp_path, change):
    assert load_tensors(damaged(tmp_path))["w"].sum() == len(range(0, packed.PACKED_FROM, 10))
    with pytest.raises(SafetensorError):
        load_tensors(damaged(tmp_path, **change))
