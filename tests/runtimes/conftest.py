from __future__ import annotations

import dataclasses

import pytest

from robust_edge_runtimes.verdict.subject import subject_of


@pytest.fixture
def subject_for(Fake, opened, linear):
    """subject_for(function, **changes): the linear bundle with an artifact whose logits are those of `function`."""

    def build(function=linear.logits, **changes):
        return dataclasses.replace(subject_of(opened, Fake(opened.manifest, function).open()), **changes)

    return build
