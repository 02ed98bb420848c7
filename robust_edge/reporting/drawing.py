"""The style of all figures, and their conversion to SVG and PNG."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# The palette of Okabe and Ito: distinguishable with common colour blindness, and by lightness in print.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RIGHT, WRONG, GREY = "#0072B2", "#D55E00", "#6b7280"

STYLE = {
    "font.family": "DejaVu Sans",  # included in matplotlib, so that reports look the same everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4b5563",
    "axes.labelcolor": "#1f2937",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "robust-edge",  # makes the output deterministic
    "text.parse_math": False,  # names of runs and classes may contain dollar signs
}


@dataclasses.dataclass(frozen=True)
class LineStyle:
    """Colour, dashes and marker of a run, the same in all figures."""

    colour: str
    dash: str
    marker: str


def line_style(index: int) -> LineStyle:
    """Colour, dashes and marker of the run with this index; they repeat after 28 runs."""
    cycle = index // len(PALETTE)
    return LineStyle(PALETTE[index % len(PALETTE)], DASHES[cycle % len(DASHES)], MARKERS[index % len(MARKERS)])


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply the common style; figures are made and saved in this context."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the tables of the report show them correctly.
        warnings.filterwarnings("ignore", message=".*Glyph.*missing from.*font")
        yield


def svg_uri(figure: Figure) -> str:
    """The figure as an SVG data URI."""
    return _uri("svg+xml", _saved(figure, format="svg", metadata={"Date": None}))


def png_uri(figure: Figure) -> str:
    """The figure as a PNG data URI; for figures of images, which SVG would only embed."""
    return _uri("png", png(figure))


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file with a resolution for print."""
    return _saved(figure, format="png", dpi=160, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, bbox_inches="tight", pad_inches=0.06, **options)
    return buffer.getvalue()


def _uri(kind: str, blob: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(blob).decode()}"
