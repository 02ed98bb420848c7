"""Every kind of tampered bundle that docs/verification-tampered.md lists.

benchmarks/tampered_kinds.py verifies them all.
"""

from __future__ import annotations

from tests.attacks.kinds import claims, files, networks

KINDS = [*networks.KINDS, *claims.KINDS, *files.KINDS]
