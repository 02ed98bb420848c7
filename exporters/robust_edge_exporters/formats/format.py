"""What the exporters know of one artifact format: the base class of every row of the table of formats."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import ClassVar

from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.differences import byte_differences
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import Bundle

INSTALL = "python3 -m pip install -r requirements.txt"


@dataclasses.dataclass(frozen=True)
class DenseBaseline:
    """A network of the same shape without zeros, to time a sparse bundle against.

    Attributes:
        bundle: in a temporary folder.
        label: how it differs from the bundle that it was made from, in a few words.
    """

    bundle: Bundle
    label: str


class Format(abc.ABC):
    """An artifact format: how it is exported, and what its bundles need beside the artifact.

    Attributes:
        needs: what run.py needs on the device.
        takes_fixed_batch: the number of images of one call can be fixed at export.
        takes_csr_threshold: layers may be stored as CSR, by their density.
        sparse_tensor_cores: the device is faster where weights are 2:4.
        device_rounds: in fp16 the device's arithmetic may round, too, and give other logits than those that the export
            was checked with; false where only the stored weights are fp16.
    """

    needs: ClassVar[str]
    takes_fixed_batch: ClassVar[bool] = True
    takes_csr_threshold: ClassVar[bool] = False
    sparse_tensor_cores: ClassVar[bool] = False
    device_rounds: ClassVar[bool] = True

    @abc.abstractmethod
    def export(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write the artifact for `target` into `folder`.

        Args:
            model: in evaluation mode; (N, C, H, W) raw pixels to (N, K) logits.
            shape: (C, H, W).
            target: what the artifact is to run on.
            folder: where to write.
            settings: what the target leaves open.

        Raises:
            ExportError: the format cannot express the network.
        """

    def dense_baseline(self, bundle: Bundle, folder: Path) -> DenseBaseline | None:
        """Write a bundle of the same network without zeros into `folder`; None where the format allows none."""
        return None

    def differences(self, built: Path, shipped: Path, names: Iterable[str]) -> list[str]:
        """Where files of a bundle are not those that the run exports, in one line for each place.

        Args:
            built: the folder of a new export.
            shipped: the bundle.
            names: of the files, as the new export has them.
        """
        missing = [name for name in names if not (shipped / name).is_file()]
        found = [f"{name} is missing" for name in missing]
        for name in names:
            if name not in missing:
                found += self.file_differences(built / name, shipped / name)
        return found

    def file_differences(self, built: Path, shipped: Path) -> list[str]:
        """The same of one file; byte by byte, unless the format knows its parts."""
        return byte_differences(built, shipped)

    def backend(self) -> str:
        """The Python 3.6 source that run.py contains: `open_model(path, manifest, threads)` and what it needs."""
        return self.template("backend.py")

    def extra_files(self) -> Mapping[str, str]:
        """Files that run.py needs beside itself, by name."""
        return {}

    def prepare_command(self, target: Target) -> str:
        """The command that a person types on the device before anything else."""
        return INSTALL

    def template(self, name: str) -> str:
        """A template of this format's own folder, or else the one that the formats share."""
        own = resources.files(type(self).__module__.rpartition(".")[0]) / "templates" / name
        shared = resources.files("robust_edge_exporters") / "templates" / name
        return (own if own.is_file() else shared).read_text(encoding="utf-8")
