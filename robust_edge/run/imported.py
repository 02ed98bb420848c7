"""Where the weights of an imported run are from."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Imported:
    """The file that `import` made a run of.

    Attributes:
        file: its absolute path then.
        sha256: of the file, without external data.
        options: of `import`, which repeat it.
    """

    file: str
    sha256: str
    options: tuple[str, ...] = ()
