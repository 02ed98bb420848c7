from __future__ import annotations

from pathlib import Path

import pytest

from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo


class FakeRuntime(BaseRuntime):
    """Answers with a function, and remembers what happened to it."""

    def __init__(self, manifest, function, **kwargs):
        super().__init__(Path("fake.bin"), manifest, **kwargs)
        self.function = function
        self.events = []

    def open_impl(self):
        self.events.append("open")
        return RuntimeInfo("fake", "1", "cpu", "fake", self.threads)

    def infer_impl(self, images):
        self.events.append(images)
        return self.function(images)

    def close_impl(self):
        self.events.append("close")


@pytest.fixture(scope="session")
def Fake():
    return FakeRuntime
