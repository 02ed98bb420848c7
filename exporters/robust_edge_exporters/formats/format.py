"""The export side of an artifact format: the base class of all rows of the table of formats."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import ClassVar

from torch import nn

from robust_edge_exporters.artifact import Contents, ExportedArtifact, ExportSettings
from robust_edge_exporters.differences import byte_differences
from robust_edge_exporters.format_option import OptionValue
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import Bundle

INSTALL = "python3 -m pip install -r requirements.txt"


@dataclasses.dataclass(frozen=True)
class DenseBaseline:
    """A bundle with a dense network of the same shapes, as the baseline for timing a sparse bundle.

    Attributes:
        bundle: the dense bundle, in a temporary folder.
        label: its difference from the sparse bundle in a few words, for tables.
    """

    bundle: Bundle
    label: str


class Format(abc.ABC):
    """An artifact format: its export, and the files that its bundles need beside the artifact.

    Attributes:
        needs: the packages and tools that run.py needs on the device.
        takes_fixed_batch: whether the batch size can be fixed at export.
        sparse_tensor_cores: whether the device is faster with 2:4 weights.
        device_rounds: whether fp16 arithmetic on the device rounds, too, so that its logits differ from those of the
            check at export; False if only the stored weights are fp16.
    """

    needs: ClassVar[str]
    takes_fixed_batch: ClassVar[bool] = True
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
            target: the target of the artifact.
            folder: the folder to write to.
            settings: the settings that the target does not determine.

        Raises:
            ExportError: the network cannot be exported in this format.
        """

    def check_options(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, options: Mapping[str, OptionValue]
    ) -> None:
        """Raise InputError if an option names what the network does not have; called before anything is attacked."""
        return

    def channel_block(self, precision: str) -> int:
        """The number of consecutive input channels whose weights the kernels store and multiply as a whole."""
        return 1

    def dense_baseline(self, bundle: Bundle, folder: Path) -> DenseBaseline | None:
        """Write a dense bundle of the same network into `folder`; return None if the format does not support it."""
        return None

    def differences(self, built: Path, shipped: Path, names: Iterable[str]) -> list[str]:
        """List the differences between the files of a bundle and those of a new export of its run, one line each.

        Args:
            built: the folder of a new export.
            shipped: the bundle.
            names: names of the files that the new export wrote.
        """
        missing = [name for name in names if not (shipped / name).is_file()]
        found = [f"{name} is missing" for name in missing]
        for name in names:
            if name not in missing:
                found += self.file_differences(built / name, shipped / name)
        return found

    def file_differences(self, built: Path, shipped: Path) -> list[str]:
        """List the differences of one file. The default compares bytes; a format may compare the contents instead."""
        return byte_differences(built, shipped)

    def contents(self, bundle: Bundle) -> Contents | None:
        """Read the contents of a bundle's artifact from its bytes; None if the format cannot.

        Raises:
            BundleError: the artifact is not of this format.
        """
        return None

    def ranges(self, folder: Path) -> Mapping[str, tuple[float, float]] | None:
        """The lowest and the highest value of each tensor in 8 bits that an artifact in `folder` records, if any.

        An export with these as `ExportSettings.ranges` writes the same files.
        """
        return None

    def backend(self) -> str:
        """The Python 3.6 source for run.py: a function `open_model(path, manifest, threads)` and its helpers."""
        return self.template("backend.py")

    def extra_files(self) -> Mapping[str, str]:
        """The texts of further files that run.py needs, by name."""
        return {}

    def prepare_command(self, target: Target) -> str:
        """The command that installs or builds what run.py needs, for the README."""
        return INSTALL

    def template(self, name: str) -> str:
        """A template from this format's folder, or the shared one if the format has none."""
        own = resources.files(type(self).__module__.rpartition(".")[0]) / "templates" / name
        shared = resources.files("robust_edge_exporters") / "templates" / name
        return (own if own.is_file() else shared).read_text(encoding="utf-8")
