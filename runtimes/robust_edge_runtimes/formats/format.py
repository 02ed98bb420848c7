"""The device side of an artifact format: the base class of all rows of the table of formats."""

from __future__ import annotations

import abc
import dataclasses
from typing import Callable, ClassVar, Iterable, Optional, Tuple, Type

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime


@dataclasses.dataclass(frozen=True)
class Prebuilt:
    """A compiled file of a bundle, which a device may load instead of the source beside it.

    Attributes:
        name: of the file.
        equal: its bytes are those that the compiler here makes of the source in the bundle.
        open: takes a number of threads, and opens a runtime that loads this file; None where it cannot be loaded here.
        reason: why it cannot be compared byte by byte.
    """

    name: str
    equal: bool = False
    open: Optional[Callable[[int], BaseRuntime]] = None
    reason: str = ""


class Format(abc.ABC):
    """An artifact format on a device: its runtime, and whether that runtime works on this machine.

    Attributes:
        dense_kernels: whether the runtime multiplies by zeros, too, so that pruning makes no network faster.
    """

    dense_kernels: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """A few words about the format, for `doctor`."""

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
            The backend that would execute an artifact, with versions.

        Raises:
            Exception: of any class, if the backend is missing or broken; `doctor` shows its text.
        """
