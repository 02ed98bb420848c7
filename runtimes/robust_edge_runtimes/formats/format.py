"""The device side of an artifact format: the base class of all rows of the table of formats."""

from __future__ import annotations

import abc
import enum
from typing import ClassVar, Iterable, Mapping, Optional, Tuple, Type

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime


class Origin(enum.Enum):
    """Whether a compiled file of a bundle is its source."""

    EQUAL = "it is what the compiler here makes of its source"
    DIFFERENT = "it is not what this compiler makes of its source"
    UNKNOWN = "it was made for another CPU or by another compiler"
    NO_COMPILER = "there is no C compiler here (cc, gcc, clang), so that it was attacked as it is"


class Format(abc.ABC):
    """An artifact format on a device: its runtime, and whether that runtime works on this machine.

    Attributes:
        dense_kernels: whether the runtime multiplies by zeros, too, so that pruning makes no network faster.
        code_files: files of a bundle that the runtime compiles and executes, so that they could do anything here.
    """

    dense_kernels: ClassVar[bool] = False
    code_files: ClassVar[Tuple[str, ...]] = ()

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

    def origins(self, bundle: Bundle, model: BaseRuntime) -> Mapping[str, Origin]:
        """The compiled files of a bundle by name; they are compared byte by byte and never loaded.

        Args:
            bundle: opened.
            model: its open runtime, as `runtime_from_source` gives it.
        """
        return {}

    def exact_runtime(self, full_range: bool) -> Type[BaseRuntime]:
        """The runtime that computes what the target's device computes, where this CPU's own kernels may saturate.

        Args:
            full_range: 8-bit weights use all of their 8 bits.
        """
        return self.runtime_from_source()

    def other_kernels(self, model: BaseRuntime) -> Optional[Type[BaseRuntime]]:
        """The class that runs the same 8-bit file with other kernels than `model`; None where there is no other."""
        return None

    def kernels_here(self) -> str:
        """The kernels of `runtime` on this CPU in words."""
        return self.description

    @abc.abstractmethod
    def probe(self) -> str:
        """Try the backend on this machine.

        Returns:
            The backend that would execute an artifact, with versions.

        Raises:
            Exception: of any class, if the backend is missing or broken; `doctor` shows its text.
        """
