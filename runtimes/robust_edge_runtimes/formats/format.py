"""What the device side knows of one artifact format: the base class of every row of the table of formats."""

from __future__ import annotations

import abc
from typing import Type

from robust_edge_runtimes.core.runtime import BaseRuntime


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

    @abc.abstractmethod
    def probe(self) -> str:
        """Try the backend on this machine.

        Returns:
            What would execute an artifact here, with versions.

        Raises:
            Exception: any, where the backend is missing or broken; its text is the reason that `doctor` shows.
        """
