"""The report as one page without anything to fetch."""

from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1060px; margin: 2rem auto; padding: 0 1rem;
  background: #fff; color: #1d2530; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; font-size: 1.2rem; }
img { width: 100%; height: auto; } p { max-width: 46rem; } small { color: #5a6573; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #e4e7ec; text-align: right;
  font-variant-numeric: tabular-nums; } td:first-child, th:first-child, td.words, th.words {
  text-align: left; } th { font-weight: 600; vertical-align: bottom; } .given { color: #1f6f4a; }
"""


def figure(value: Any, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return escape(str(value))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], words: frozenset[int]) -> str:
    """A table.

    Args:
        head: names of the columns.
        rows: cells; numbers are set with one decimal.
        words: columns that hold text, beside the first.
    """
    kinds = [' class="words"' if place in words else "" for place in range(len(head))]
    top = "".join(f"<th{kind}>{escape(h)}</th>" for h, kind in zip(head, kinds, strict=True))
    lines = [
        "<tr>" + "".join(f"<td{k}>{figure(c)}</td>" for c, k in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    ]  # fmt: skip
    return f'<div class="scroll"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def page(title: str, parts: Sequence[str]) -> str:
    """Put a page together."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>"
        + "".join(parts)
    )


def section(title: str, text: str, *parts: str) -> str:
    """A heading, a paragraph, tables and pictures."""
    return f"<h2>{escape(title)}</h2><p>{escape(text)}</p>" + "".join(parts)


def image(address: str, words: str) -> str:
    """A picture that is in the page itself."""
    return f'<img src="{address}" alt="{escape(words)}">'
