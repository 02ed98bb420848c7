"""What the device side knows of one artifact format: the base class of every row of the table of formats."""

from __future__ import annotations

import abc
import dataclasses
from typing import Callable, Iterable, Optional, Tuple, Type

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime


@dataclasses.dataclass(frozen=True)
class Prebuilt:
    """A compiled file of a bundle, which a device may load instead of the source beside it.

    Attributes:
        name: of the file.
        open: takes a number of threads, and opens a runtime that loads this file; None where that says nothing.
        reason: why it says nothing.
    """

    name: str
    open: Optional[Callable[[int], BaseRuntime]] = None
    reason: str = ""


class Format(abc.ABC):
    """An artifact format on a device: the runtime that executes it, and whether that runtime would work here."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """What such a bundle holds, in a few words for `doctor`."""

    @property
    @abc.abstractmethod
    def remedy(self) -> str:
        """The command that installs what `probe` finds missing."""

    @abc.abstractmethod
    def runtime(self) -> Type[BaseRuntime]:
        """The class that executes an artifact; importing it must not import the backend."""

    def runtime_from_source(self) -> Type[BaseRuntime]:
        """The class that `verify` attacks: it compiles what the bundle holds the source of, and loads nothing else."""
        return self.runtime()

    def compiled_files(self, names: Iterable[str]) -> Tuple[str, ...]:
        """Those of a bundle's files that were compiled on the exporting machine, and are other bytes on another."""
        return ()

    def prebuilt(self, bundle: Bundle, model: BaseRuntime) -> Tuple[Prebuilt, ...]:
        """The compiled files of a bundle.

        Args:
            bundle: opened.
            model: its open runtime, as `runtime_from_source` gives it.
        """
        return ()

    @abc.abstractmethod
    def probe(self) -> str:
        """Try the backend on this machine.

        Returns:
            What would execute an artifact here, with versions.

        Raises:
            Exception: any, where the backend is missing or broken; its text is the reason that `doctor` shows.
        """
