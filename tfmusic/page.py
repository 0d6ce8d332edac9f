"""One HTML file with tables, pictures and sounds inside, readable in light and dark. No TensorFlow."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import io

import numpy as np
from matplotlib.figure import Figure

from tfmusic import audio
from tfmusic.tables import Rows

# Pictures have a transparent ground: in the dark their ink is turned light, hues are kept.
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #8884; text-align: left; font-variant-numeric: tabular-nums }
img { max-width: 100% }
pre { overflow-x: auto }
audio { height: 2em; vertical-align: middle }
@media (prefers-color-scheme: dark) { img { filter: invert(1) hue-rotate(180deg) } }
"""


@dataclasses.dataclass(frozen=True)
class Sound:
    """A track to listen to."""

    caption: str
    waveform: np.ndarray  # int16 (samples,)


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A heading, a line of text, a table (its first row is the heading), a picture, sounds."""

    title: str
    text: str = ""
    rows: Rows = ()
    figure: Figure | None = None
    sounds: tuple[Sound, ...] = ()

    @functools.cached_property
    def png(self) -> bytes:
        """The picture on a transparent ground, drawn once for all pages that show it."""
        return png(self.figure, transparent=True)


def png(figure: Figure, transparent: bool = False) -> bytes:
    """A picture as a file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, transparent=transparent)
    return content.getvalue()


def table(rows: Rows) -> str:
    """Rows as HTML, the first as heading.

    >>> table([["a"], ["<b>"]])
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    kinds = ["th", *["td"] * (len(rows) - 1)]
    lines = ["".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) for row, kind in zip(rows, kinds, strict=False)]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>" if lines else ""


def markdown(rows: Rows) -> str:
    """Rows as TensorBoard's text panel wants them."""
    lines = [" | ".join(cell.replace("|", "&#124;") or " " for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [*lines[:1], " | ".join(["---"] * len(rows[0])), *lines[1:]]) if rows else ""


def section(exhibit: Exhibit, rate_hz: int = 0) -> str:
    """An exhibit as HTML, its picture and sounds inside.

    Args:
        exhibit: what is shown.
        rate_hz: of its sounds.
    """
    parts = [f"<h2>{html.escape(exhibit.title)}</h2>"]
    if exhibit.text:
        parts.append(f"<p>{html.escape(exhibit.text)}</p>")
    parts.append(table(exhibit.rows))
    if exhibit.figure:
        source = f"data:image/png;base64,{_base64(exhibit.png)}"
        parts.append(f"<img alt='{html.escape(exhibit.title, quote=True)}' src='{source}'>")
    for sound in exhibit.sounds:
        source = f"data:audio/flac;base64,{_base64(audio.encode_flac(sound.waveform, rate_hz))}"
        parts.append(f"<p><audio controls preload=none src='{source}'></audio> {html.escape(sound.caption)}</p>")
    return "".join(parts)


def document(title: str, body: list[str]) -> str:
    """The whole file.

    Args:
        title: of the window.
        body: pieces of HTML.
    """
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>{''.join(body)}\n"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
