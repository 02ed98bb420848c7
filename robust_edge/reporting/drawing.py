"""How figures look, and how they become bytes."""

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

# Okabe and Ito's palette: told apart with every common colour blindness, and by lightness in print.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RIGHT, WRONG, GREY = "#0072B2", "#D55E00", "#6b7280"

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a page looks the same wherever it is made
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
    "svg.hashsalt": "robust-edge",  # the same data give the same bytes
    "text.parse_math": False,  # names of runs and classes are text, dollar signs included
}


@dataclasses.dataclass(frozen=True)
class Look:
    """Colour, dash and marker of one run in every figure."""

    colour: str
    dash: str
    marker: str


def look(index: int) -> Look:
    """The look of the run at a position; 28 differ before one comes again."""
    turn = index // len(PALETTE)
    return Look(PALETTE[index % len(PALETTE)], DASHES[turn % len(DASHES)], MARKERS[index % len(MARKERS)])


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The house style; figures are made and saved inside it."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the page's tables show it right.
        warnings.filterwarnings("ignore", message=".*Glyph.*missing from.*font")
        yield


def svg_uri(figure: Figure) -> str:
    """The figure as an SVG data URI."""
    return _uri("svg+xml", _saved(figure, format="svg", metadata={"Date": None}))


def png_uri(figure: Figure) -> str:
    """The figure as a PNG data URI; for pictures, which SVG only wraps."""
    return _uri("png", png(figure))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, at a resolution for print."""
    return _saved(figure, format="png", dpi=160, metadata={"Software": None})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, bbox_inches="tight", pad_inches=0.06, **options)
    return buffer.getvalue()


def _uri(kind: str, blob: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(blob).decode()}"
