from __future__ import annotations

import contextlib
import os
import sys

import pytest

_watchers = []


def _hook(event, arguments):
    if _watchers and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        for seen in _watchers:
            seen.append(os.path.realpath(os.fsdecode(arguments[0])))


sys.addaudithook(_hook)  # stays for the life of the process, and does nothing while nobody watches


@pytest.fixture
def watch():
    """`with watch() as seen:` collects the real path of every file that the process opens."""

    @contextlib.contextmanager
    def watching():
        seen = []
        _watchers.append(seen)
        try:
            yield seen
        finally:
            _watchers.remove(seen)

    return watching
