"""The network that a run starts from: random weights, a state dict, or the network of another run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from robust_edge.config.compress import CompressConfig
from robust_edge.data import Dataset
from robust_edge.data.normalisation import per_channel
from robust_edge.models import ModelSpec, Normalized, build_model
from robust_edge.models.head import with_new_head
from robust_edge.models.spec import checked_model
from robust_edge.models.state_dict import load_initial
from robust_edge.models.table import DEFAULT_ARCHITECTURE, GRAPH
from robust_edge.parallel.ranks import Ranks
from robust_edge.plugins import is_own
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.run.directory import Run, open_run
from robust_edge.run.known_code import refuse_unknown
from robust_edge.training.batchnorm import batchnorms
from robust_edge_runtimes.core.errors import InputError

GRAPHS = (".onnx", ".pt2")


@dataclasses.dataclass(frozen=True, eq=False)
class Initial:
    """A network before its training.

    Attributes:
        model: with its weights.
        dataset: the images, their classes in the order of the network's.
        held: masks of the zeros to hold, by name of the weight; None where `pruning.keep_mask` is off.
        notes: what was taken from where, one sentence each, for run.log.
    """

    model: Normalized
    dataset: Dataset
    held: dict[str, Tensor] | None
    notes: tuple[str, ...]


def opened_initial(config: CompressConfig, path: Path, allow_code: bool = False) -> Run | None:
    """The run that `init` names, None for a file or nothing.

    Args:
        config: the settings of the new run.
        path: the new run.
        allow_code: as `open_run`.

    Raises:
        InputError: `init` is the new run itself, a folder but no finished run, a run of code that this user never
            chose, or a graph that has not been imported.
    """
    if config.init is None:
        return None
    source = Path(config.init)
    if source.is_dir():
        if source.resolve() == path.resolve():
            raise InputError(f"`init` {source} is the run to be written; choose another path")
        run = open_run(source, allow_code=allow_code)
        arch = run.checkpoint().model.arch
        if is_own(arch) and not allow_code:
            refuse_unknown([arch], source)
        return run
    if source.suffix.lower() in GRAPHS:
        raise InputError(
            f"`init` {source} holds a graph; make a run of it first, by robust-edge import, and name the run"
        )
    return None


def initial_network(config: CompressConfig, dataset: Dataset, source: Run | None, ranks: Ranks) -> Initial:
    """Build the network of a config with its first weights.

    Args:
        config: of the new run.
        dataset: its images.
        source: what `opened_initial` gives.
        ranks: the processes that train together.

    Raises:
        InputError: architecture, weights, classes, shape or normalisation do not fit each other.
    """
    given = None if source is None else source.checkpoint().model
    if given is not None and not config.new_head:
        _refuse_other_classes(config, dataset, given)
        dataset = dataset.with_classes(given.classes)
    spec, origin = _spec(config, dataset, given, ranks)
    model, fresh = _built(config, spec, source)
    notes = [f"normalisation of {origin}: mean {list(spec.mean)}, std {list(spec.std)}"]
    if config.init is not None:
        file = Path(config.init) if source is None else source.weights_file()
        read = load_initial(model, file, arch=spec.arch, without=fresh)
        notes = [f"initial network: {spec.arch} of {config.init}", *notes, *read, *_notes(config, model, fresh)]
    if source is not None and (problem := source.checkpoint().diverged) is not None:
        notes.append(f"the training of the initial run diverged: {problem}")
    held = _zeros(model, fresh, config) if config.pruning.keep_mask else None
    return Initial(model, dataset, held, tuple(notes))


def _spec(config: CompressConfig, dataset: Dataset, given: ModelSpec | None, ranks: Ranks) -> tuple[ModelSpec, str]:
    """The description of the network, and where its normalisation is from; `given` is that of the initial run."""
    arch = _architecture(config, given)
    if given is not None and arch == GRAPH and given.shape != dataset.shape:
        wanted, found = ("x".join(map(str, shape)) for shape in (given.shape, dataset.shape))
        raise InputError(f"`init` {config.init} takes images of {wanted}, the data set has {found}; set data.resize")
    mean, std, origin = _normalisation(config, dataset, given, ranks)
    return ModelSpec(arch=arch, shape=dataset.shape, classes=dataset.classes, mean=mean, std=std), origin


def _built(config: CompressConfig, spec: ModelSpec, source: Run | None) -> tuple[Normalized, frozenset[str]]:
    """The network with random weights, and the names of those that `init` does not give."""
    torch.manual_seed(config.seed)
    folder = None if source is None else source.path
    if not config.new_head:
        return build_model(spec, folder), frozenset()
    old = None if source is None else len(source.checkpoint().model.classes)
    network, fresh = with_new_head(spec.arch, len(spec.classes), spec.shape[0], folder=folder, old=old)
    return checked_model(network, spec), fresh


def _architecture(config: CompressConfig, given: ModelSpec | None) -> str:
    if given is None:
        return config.arch or DEFAULT_ARCHITECTURE
    if config.arch not in (None, given.arch):
        raise InputError(f"`init` {config.init} is a run of {given.arch}, not of {config.arch}; leave `arch` out")
    return given.arch


def _refuse_other_classes(config: CompressConfig, dataset: Dataset, given: ModelSpec) -> None:
    unknown = sorted(set(dataset.classes) - set(given.classes))
    if unknown:
        raise InputError(
            f"class {unknown[0]!r} of data set {dataset.name} is none of the {len(given.classes)} of `init` "
            f"{config.init}; `new_head` replaces its classifier by one for the classes of the data"
        )


def _normalisation(
    config: CompressConfig, dataset: Dataset, given: ModelSpec | None, ranks: Ranks
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean and standard deviation per channel, and where they are from."""
    data = config.data
    if data.mean is not None and data.std is not None:
        return (*per_channel(data.mean, data.std, dataset.shape[0], ("data.mean", "data.std")), "the settings")
    if given is not None:
        return given.mean, given.std, "the initial run"
    return (*ranks.broadcast(dataset.channel_statistics), "the training images")


def _notes(config: CompressConfig, model: Normalized, fresh: frozenset[str]) -> list[str]:
    notes = [f"new classifier, with random weights: {', '.join(sorted(fresh))}"] if fresh else []
    if config.training.freeze_batchnorm:
        layers = len(batchnorms(model))
        if not layers:
            raise InputError(
                "training.freeze_batchnorm: the network has no batch norm with running statistics (exporters may have "
                "folded it into other layers); leave it out"
            )
        notes.append(f"frozen: running statistics, scale and shift of {layers} batch norms")
    return notes


def _zeros(model: Normalized, fresh: frozenset[str], config: CompressConfig) -> dict[str, Tensor]:
    """Masks of the present zeros; a new classifier has none."""
    held = {
        name: torch.ones_like(weight, dtype=torch.bool)
        if name.removeprefix("network.") in fresh
        else weight.detach() != 0
        for name, weight in prunable_parameters(model).items()
    }
    if all(bool(kept.all()) for kept in held.values()):
        raise InputError(
            f"pruning.keep_mask holds zeros, but no prunable weight of `init` {config.init} is zero; leave it out"
        )
    return held
