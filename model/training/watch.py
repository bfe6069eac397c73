"""Who is told how a run goes."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, int, int], None]
"""Called with the name of a task, how much of it is done, and how much there is."""


def _no_progress(_task: str, _done: int, _total: int) -> None:
    pass


def _no_row(_row: dict[str, float]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how a run goes.

    Attributes:
        show: called with a task, how much of it is done and how much there is.
        tell: called with every line of the log.
    """

    show: Progress = _no_progress
    tell: Callable[[dict[str, float]], None] = _no_row


def _print_row(row: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


SILENT = Watch()
PRINTING = Watch(tell=_print_row)
"""Prints every line of the log."""
