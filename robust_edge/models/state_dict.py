"""Loading weights that others have trained, without unpickling code."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_edge.models.normalized import Normalized
from robust_edge.models.weight_file import read_state_dicts
from robust_edge.pruning.parametrised import effective_names, parametrizations_of, set_effective
from robust_edge.pruning.prunable import tensor_named
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.decode import short_repr
from robust_edge_runtimes.core.errors import InputError

WRAPPERS = ("", "state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the trained weights, where they also store averages of them."""
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing insert into the names of a module that they wrap."""
BESIDE = ("mean", "std", "n_averaged")
"""Tensors that `Normalized` and torch's `AveragedModel` store beside those of the network."""
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Classifiers of torchvision's GoogLeNet and Inception that only training uses; its files of weights have them."""
OLDER_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
"""torchvision's files of weights for DenseNet say `norm.1` where the network says `norm1`."""
COUNTER = "num_batches_tracked"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def load_initial(
    model: Normalized, path: Path, *, arch: str = "the model", without: Collection[str] = ()
) -> tuple[str, ...]:
    """Load a state dict into the network of a model, as the setting `init` asks; mean and std of the model stay.

    Args:
        model: changed in place.
        path, arch, without: as in `load_state_dict`.

    Returns:
        Notes, as `load_state_dict`.
    """
    return load_state_dict(model.network, path, where=f"`init` {path}", arch=arch, without=without)


def load_state_dict(
    network: nn.Module,
    path: Path,
    *,
    where: str = "",
    arch: str = "the model",
    without: Collection[str] = (),
    classes: str = "",
) -> tuple[str, ...]:
    """Load a state dict into a network without unpickling code.

    Args:
        network: changed in place. Of its parametrised weights (weight norm, spectral norm) the file may hold the
            originals or the effective tensors.
        path: as for `read_state_dicts`; the state dict that has the most names of the network is taken. All names may
            have a prefix, such as `module.`.
        where: what the file is, for error messages; by default its path.
        arch: the network's architecture, for error messages.
        without: names of tensors that keep their values, whatever the file holds under them.
        classes: what names the classes and which, to explain a shape of others; by default the data set.

    Returns:
        What was made of the file, one sentence each.

    Raises:
        InputError: the file cannot be read, holds other objects than tensors, has other names or shapes than the
            network, or values that are not finite.
    """
    where = where or str(path)
    state = network.state_dict()
    effective = effective_names(network)
    with evaluation_mode(network):
        plain = {name: tensor_named(network, name) for name in effective}
    tensors, notes = _chosen(read_state_dicts(path, where), {**state, **plain}, without, where)
    given = {name: tensor for name, tensor in tensors.items() if name not in without}
    own = _expected(state, plain, effective, given, without)
    given |= _shared(state, given)
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    missing = [name for name in missing if not name.endswith(COUNTER)]
    if missing or extra:
        raise InputError(
            f"{where} does not fit {arch}: missing {short_repr(missing[:3])}, unexpected {short_repr(extra[:3])}"
            f"; {_way_out(missing, extra, own)}"
        )
    for name, tensor in given.items():
        _refuse_other_kinds(where, name, own[name], tensor)
        if own[name].shape != tensor.shape:
            raise InputError(
                f"{where}: {name} is {tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
                f"{_other_task(name, own, tensor, classes)}"
            )
        if not tensor.isfinite().all():
            raise InputError(f"{where}: {name} holds NaN or infinity; take a checkpoint from before it diverged")
    before = {name: tensor.clone() for name, tensor in state.items()}
    values = {name: given.pop(name) for name in [*given] if name in plain}
    network.load_state_dict(with_versions(network, {**state, **given}))
    try:
        for name, value in values.items():
            set_effective(network, name, value)
    except InputError as cause:
        network.load_state_dict(with_versions(network, before))
        raise InputError(f"{where}: {cause}") from cause
    return notes


def _without_pruning_masks(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Replace the `weight_orig` and `weight_mask` of torch.nn.utils.prune by the weight that the network computes.

    Args:
        tensors: of a file, by name.
        own: of the network; where it is built with such masks, the tensors stay.
        where: what the file is.

    Returns:
        The tensors, and a note where some were replaced.
    """
    masked = [name.removesuffix("_mask") for name in tensors if name.endswith("_mask")]
    masked = [name for name in masked if f"{name}_orig" in tensors]
    if not masked or any(f"{name.removesuffix('_mask')}_orig" in own for name in own if name.endswith("_mask")):
        return tensors, ()
    plain = dict(tensors)
    for name in masked:
        mask, original = plain.pop(f"{name}_mask"), plain.pop(f"{name}_orig")
        _refuse_other_kinds(where, f"{name}_mask", torch.empty(0, dtype=torch.bool), mask)
        _refuse_other_kinds(where, f"{name}_orig", torch.empty(0), original)
        if mask.shape != original.shape:
            raise InputError(f"{where}: {name}_mask is {tuple(mask.shape)}, {name}_orig {tuple(original.shape)}")
        plain[name] = mask.to(original.dtype) * original
    return plain, (
        f"tensors that torch.nn.utils.prune has pruned: {len(masked)}; each is read as the product of its NAME_orig "
        "and NAME_mask, so that its zeros stay",
    )


def with_versions(module: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors as a state dict of the module, with the versions of its layers, which no file of tensors holds.

    Torch stores them beside a state dict, and layers may refuse one without them, as torchvision's MNASNet does.
    """
    state = OrderedDict(tensors)
    vars(state)["_metadata"] = vars(module.state_dict())["_metadata"]
    return state


def _refuse_other_kinds(where: str, name: str, own: Tensor, tensor: Tensor) -> None:
    """Refuse a tensor that torch would copy into the network with other values, or cannot copy at all."""
    kinds = FLOATS if own.is_floating_point() else (*FLOATS, *INTEGERS)
    dense = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta
    if not dense or tensor.dtype not in kinds:
        held, asked = (str(kind).removeprefix("torch.") for kind in (tensor.dtype if dense else "not dense", own.dtype))
        raise InputError(f"{where}: {name} is {held}, the model has {asked}; save the tensors of the float network")


def _expected(
    state: dict[str, Tensor],
    plain: dict[str, Tensor],
    effective: dict[str, tuple[str, ...]],
    given: dict[str, Tensor],
    without: Collection[str],
) -> dict[str, Tensor]:
    """The tensors that a file must hold by name: of a parametrised weight its originals, or the effective tensor.

    `given` gets the names of today's weight norm and spectral norm in place of `weight_g`, `weight_orig` and so on.
    """
    for name, originals in effective.items():
        for suffix, original in zip(("_g", "_v"), originals, strict=False):
            if f"{name}{suffix}" in given and len(originals) == 2:
                given[original] = given.pop(f"{name}{suffix}")
        if f"{name}_orig" in given and len(originals) == 1:
            for suffix, part in (("_orig", "original"), ("_u", "0._u"), ("_v", "0._v")):
                if f"{name}{suffix}" in given:
                    given[f"{parametrizations_of(name)}{part}"] = given.pop(f"{name}{suffix}")
    own = {**state}
    for name in effective.keys() & given.keys():
        for part in [part for part in own if part.startswith(parametrizations_of(name))]:
            del own[part]
        own[name] = plain[name]
    return {name: tensor for name, tensor in own.items() if name not in without}


def _shared(state: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The given tensors under the other names that the network has for them, which safetensors files leave out."""
    places = {tensor.data_ptr(): name for name, tensor in state.items() if name in given and tensor.numel()}
    others = {name: places.get(tensor.data_ptr()) for name, tensor in state.items() if name not in given}
    return {name: given[own] for name, own in others.items() if own is not None}


def _chosen(
    groups: dict[str, dict[str, Tensor]], own: Mapping[str, Tensor], without: Collection[str], where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of the group in a file that fits a network best, under the names of the network.

    Args:
        groups: of the file, by their place in it.
        own: of the network.
        without: names of `own` that the file need not hold.
        where: what the file is.

    Returns:
        The tensors, and what was made of the file.
    """
    found, notes = {}, {}
    for place, tensors in groups.items():
        plain, notes[place] = _without_pruning_masks(tensors, own, where)
        found[place] = _under_own_names(plain, own, without)
    fits = {place: len(own.keys() & tensors.keys()) for place, (tensors, _) in found.items()}
    best = [place for place in found if fits[place] == max(fits.values())]
    place = next((place for place in best if place.rpartition(".")[2] in WRAPPERS), best[0])
    tensors, left = found[place]
    said = list(notes[place])
    if len(best) > 1:
        others = ", ".join(repr(other) for other in best if other != place)
        said.append(f"the weights are those of {place!r} in the file, which also holds {others}")
    if left:
        said.append(f"tensors in the file that are not of the network: {len(left)}, such as {left[0]}")
    return tensors, tuple(said)


def _under_own_names(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], without: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors below the prefix that gives the most names of the network, and the names that are not of it.

    Where all of the network is there, the names outside that prefix are of something else in the same training, such
    as the loss; otherwise they stay, so that an error can name them.
    """
    tensors = {_renamed(name, own): tensor for name, tensor in tensors.items()}
    prefixes = {name.removesuffix(end) for name in tensors for end in _ends(name) if end in own}
    prefixes = {prefix for prefix in prefixes if not prefix or prefix.endswith(".")}
    prefix = max(sorted(prefixes | {""}, key=len), key=lambda prefix: sum(prefix + name in tensors for name in own))
    below = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outside = [name for name in tensors if not name.startswith(prefix) and name.rpartition(".")[2] not in BESIDE]
    left = [name for name in below if name not in own and name.startswith(AUXILIARY)]
    below = {name: tensor for name, tensor in below.items() if name not in left and (name in own or name not in BESIDE)}
    if all(name in below or name in without or name.endswith(COUNTER) for name in own):
        return below, left + outside
    return {**{name: tensors[name] for name in outside}, **below}, left


def _ends(name: str) -> Iterator[str]:
    """The name itself, and what follows each of its dots."""
    while name:
        yield name
        name = name.partition(".")[2]


def _renamed(name: str, own: Mapping[str, Tensor]) -> str:
    """The name without what wrappers of modules add to it inside, and as torchvision calls it today."""
    if name in own:
        return name
    for inserted in INSERTED:
        name = name.replace(inserted, "")
    return OLDER_DENSENET.sub(r"\1", name)


def _way_out(missing: Sequence[str], extra: Sequence[str], own: Mapping[str, Tensor]) -> str:
    """What to do where a file has other names than the network."""
    head = next((name.removesuffix("weight") for name in reversed(_weights(own))), "")
    if head and missing and not extra and all(name.startswith(head) for name in missing):
        return "the classifier is not in the file: train one with `new_head` of compress"
    return "name the architecture of its network in `arch`"


def _weights(own: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights of layers, in order."""
    return [name for name, tensor in own.items() if name.endswith("weight") and tensor.ndim > 1]


def _other_task(name: str, own: dict[str, Tensor], given: Tensor, classes: str) -> str:
    """Explain a shape mismatch of the first or last layer by its number of channels or classes; otherwise ""."""
    weights = _weights(own)
    ends = {weights[-1], weights[-1].removesuffix("weight") + "bias"} if weights else set()
    if name in ends and given.shape[:1] != own[name].shape[:1]:
        named = classes or f"the data set has {own[name].shape[0]}"
        return f"; it was trained for {given.shape[0]} classes, {named}"
    if name in weights[:1] and given.ndim > 1 and given.shape[1:2] != own[name].shape[1:2]:
        return f"; it takes images of {given.shape[1]} channels, the data set has {own[name].shape[1]}"
    return ""
