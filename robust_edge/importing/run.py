"""A run without training: an imported network, judged on images, in an ordinary run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import assignments_of
from robust_edge.data import Dataset, load_dataset
from robust_edge.data.normalisation import per_channel, refuse_large_means
from robust_edge.importing.source import Request, Source
from robust_edge.importing.table import read_source, require_source
from robust_edge.models import ModelSpec
from robust_edge.models.spec import checked_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.run.directory import Checkpoint, check_free, create_run
from robust_edge.run.imported import Imported
from robust_edge.training.closing import write_network
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import sha256_of

NO_MEAN, NO_STD = 0.0, 1.0
OF_OPTIONS = {"data.dataset", "data.dir", "attack.eps"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """Settings of an import: what the file itself does not contain.

    Attributes:
        arch: the architecture of a state dict.
        shape: (C, H, W), where the file leaves it open; None for that of the images.
        mean, std: of the normalisation that the network expects, one value for all channels or one for each.
        classes: names in the order of the logits; None for those of the data set.
        classes_file: the file that those names are from, if they are from one.
        allow_code: whether a program may run code while it is read.
    """

    arch: str | None = None
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] = (NO_MEAN,)
    std: tuple[float, ...] = (NO_STD,)
    classes: tuple[str, ...] | None = None
    classes_file: Path | None = None
    allow_code: bool = False

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.std):
            raise InputError(f"`std` must be above 0; it is {list(self.std)}")
        refuse_large_means(self.mean, self.std, "`mean`", "`mean` {} `std` {}")

    @property
    def classes_from(self) -> str:
        """Where the names of the classes are from, for error messages."""
        return "`classes`" if self.classes_file is None else f"--classes {self.classes_file}"


def import_run(
    source: Path,
    config: CompressConfig,
    path: Path,
    settings: ImportSettings,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Checkpoint, tuple[str, ...]]:
    """Write a run whose network was trained elsewhere; its weights and statistics stay as they are.

    Args:
        source: the file to import.
        config: the data, the radius to judge at, and the seed; architecture, epochs and kept fraction are set here.
        path: the run directory; nothing is written before the network has been read and checked.
        settings: what the file does not say.
        overwrite: whether to replace an older run.
        progress: called with (test images evaluated, number of test images).

    Returns:
        The content of checkpoint.json, and notes on what was changed and checked.

    Raises:
        InputError: the file, the images or the settings cannot be used, or do not fit each other.
    """
    check_free(path, overwrite=overwrite)
    # before the images are read, which can take minutes
    require_source(source, settings.arch, allow_code=settings.allow_code)
    dataset = load_dataset(config.data)
    classes, named = settings.classes or dataset.classes, _named_classes(dataset, settings)
    if settings.shape is not None and settings.shape != dataset.shape:
        raise InputError(f"`shape` is {settings.shape}, the images are {dataset.shape}; leave it out")
    found = read_source(
        Request(
            path=source,
            arch=settings.arch,
            shape=dataset.shape,
            classes=len(classes),
            named=named,
            allow_code=settings.allow_code,
        )
    )
    if found.classes != len(classes):
        raise InputError(f"the network has {found.classes} classes, {named}")
    unknown = sorted(set(dataset.classes) - set(classes))
    if unknown:
        raise InputError(
            f"{settings.classes_from} lacks class {unknown[0]!r}: the network has {found.classes} classes, {named}"
        )
    dataset = dataset.with_classes(classes)
    model = checked_model(found.network, spec_of(found, settings, classes)).eval()
    kept = sparsity_of(prunable_parameters(model)).keep
    imported = Imported(str(source.absolute()), sha256_of(source), import_options(config, settings))
    config = dataclasses.replace(
        config,
        arch=found.arch,
        init=imported.file,
        training=dataclasses.replace(config.training, epochs=0),
        pruning=dataclasses.replace(config.pruning, keep=kept if kept < ZEROS_BY_CHANCE else 1.0),
    )
    run = create_run(path, config, overwrite=overwrite)
    run.write_architecture(model)
    for note in found.notes:
        run.log(f"imported from {source}: {note}")
    return write_network(run, dataset, model, 0, progress=progress, imported=imported), found.notes


def import_options(config: CompressConfig, settings: ImportSettings) -> tuple[str, ...]:
    """The options of `robust-edge import` that give these settings, for a reader who repeats it."""
    given = {
        "--arch": settings.arch,
        "--dataset": config.data.dataset,
        "--data-dir": config.data.dir,
        "--eps": str(config.attack.eps) if config.attack.eps else None,
        "--mean": None if settings.mean == (NO_MEAN,) else ",".join(map(repr, settings.mean)),
        "--std": None if settings.std == (NO_STD,) else ",".join(map(repr, settings.std)),
        "--classes": None if settings.classes_file is None else str(settings.classes_file.absolute()),
        "--input-shape": None if settings.shape is None else "x".join(map(str, settings.shape)),
    }
    words = [word for option, value in given.items() if value is not None for word in (option, value)]
    others = [text for text in assignments_of(config) if text.partition("=")[0] not in OF_OPTIONS]
    words += [word for assignment in others for word in ("--set", assignment)]
    return (*words, *(["--allow-code"] if settings.allow_code else []))


def _named_classes(dataset: Dataset, settings: ImportSettings) -> str:
    """What names the classes and which, and what to do where the network has others."""
    images = f"data set {dataset.name} has {_counted(dataset.classes)}"
    if settings.classes is None:
        way_out = "otherwise name all classes of the network, in the order of its logits, in `classes`"
        return f"{images}; a class folder may be missing, or one too many; {way_out}"
    names = f"{settings.classes_from} names {_counted(settings.classes)}"
    return f"{names}, {images}; name all classes of the network there, in the order of its logits"


def _counted(names: Sequence[str], most: int = 12) -> str:
    return f"{len(names)} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"


ZEROS_BY_CHANCE = 0.99
"""Kept fraction from which a network counts as dense: trained weights may be zero without having been pruned."""


def spec_of(source: Source, settings: ImportSettings, classes: Sequence[str] | None) -> ModelSpec:
    """The description of an imported network.

    Args:
        source: what was read.
        settings: the normalisation.
        classes: a name for each logit, in this order; None for numbers.

    Raises:
        InputError: there are not as many means or deviations as channels.
    """
    names = tuple(classes or map(str, range(source.classes)))
    mean, std = per_channel(settings.mean, settings.std, source.shape[0], ("`mean`", "`std`"))
    return ModelSpec(arch=source.arch, shape=source.shape, classes=names, mean=mean, std=std)
