"""The reference implementation of AutoAttack with a tenth of its iterations: the same code, in seconds."""

from __future__ import annotations

import pytest


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Shorten every AutoAttack that is made from now on, until the patch is undone."""
    pyautoattack = pytest.importorskip("pyautoattack", reason="the extra `attack` is not installed")
    constructor = pyautoattack.AutoAttack.__init__

    def shorter(self, *arguments, **settings):
        constructor(self, *arguments, **settings)
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 12
            attack.n_iter_2, attack.n_iter_min, attack.size_decr = 3, 1, 1
        self.fab.n_iter, self.square.n_queries = 8, 150

    patch.setattr(pyautoattack.AutoAttack, "__init__", shorter)
