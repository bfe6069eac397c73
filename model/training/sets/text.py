"""The texts and tables of data sets, with or without the byte order mark that Excel writes."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from model.errors import FrameError


def read_text(path: Path) -> str:
    """The whole of a text file.

    Raises:
        FrameError: it is in another encoding than UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FrameError(f"{path} is no text in UTF-8: {error.reason} at {error.start}") from error


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file below its head, each with the number of its last line.

    Args:
        path: the file.
        columns: what it must have.

    Raises:
        FrameError: it is in another encoding, lacks a column, or has a quote that never ends.
    """
    lines = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        missing = set(columns) - set(lines.fieldnames or ())
        rows = [(lines.line_num, row) for row in lines]
    except csv.Error as error:
        begun = lines.line_num + 1
        raise FrameError(f"{path} line {begun} is no line of a table: {error}") from error
    if missing:
        raise FrameError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    return rows
