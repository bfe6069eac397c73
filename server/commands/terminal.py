"""What a command says: words for people, or one JSON document, and the exit code."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model import EchoError
from server.errors import NotFoundError, storage_errors

DONE, FAILED = 0, 1
"""Exit codes; 2 is wrong usage, which the parser of the command line gives."""


class CommandError(EchoError):
    """A command that could not be carried out, with the code of whatever stopped it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = code


class Terminal:
    """Where a command's words go; under JSON people read standard error."""

    def __init__(self, as_json: bool = False) -> None:
        """Choose the audience of standard output: people, or a program."""
        self.as_json = as_json
        self._has_given = False
        self.words = Console(stderr=as_json, highlight=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a line for people; silent under JSON."""
        if not self.as_json:
            self.words.print(_as_text(line), markup=False)

    def note(self, line: str) -> None:
        """Print a line for people beside what standard output is for; silent under JSON."""
        if not self.as_json:
            self._notes.print(_as_text(line), markup=False)

    def give(self, document: Mapping[str, Any] | Sequence[Any]) -> None:
        """Print the command's one JSON document; silent for people."""
        if self.as_json:
            # Also where it cannot be written, as to a full disk: then people are told.
            self._has_given = True
            try:
                sys.stdout.write(json.dumps(_finite(document), allow_nan=False) + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                self.words.on_broken_pipe()  # ends as words do that nobody reads any more

    def refuse(self, error: EchoError) -> None:
        """Say what could not be done and why; to people where the document is out already."""
        if self.as_json and not self._has_given:
            self.give(refusal(error))
        else:
            words = escape(_as_text(error.message))
            self._notes.print(f"[red]Not done:[/red] {words} ({code_of(error)})")

    @contextmanager
    def progress(self, task: str) -> Iterator["Bar"]:
        """Show how far a long task is, where somebody watches."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        is_hidden = not self.words.is_terminal
        with Progress(*columns, console=self.words, transient=True, disable=is_hidden) as progress:
            yield Bar(progress, _as_text(task))


class Bar:
    """One task's bar."""

    def __init__(self, progress: Progress, task: str) -> None:
        self._progress = progress
        self._task = progress.add_task(task, total=None)

    def show(self, done: int, total: int | None, task: str | None = None) -> None:
        """Move the bar; the total may be unknown, and the task another one."""
        self._progress.update(self._task, completed=done, total=total, description=task)


def _as_text(words: str) -> str:
    """What can be printed: names of files may hold bytes that are no text."""
    return words.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for by null, and write what is no text as text."""
    match value:
        case str():
            return _as_text(value)
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case _:
            return value


def code_of(error: EchoError) -> str:
    """The stable code of an error, also of one that came over the wire."""
    return error.reason if isinstance(error, CommandError) else error.code


def refusal(error: EchoError) -> dict[str, Any]:
    """Make the JSON document of a refusal."""
    return {"error": {"code": code_of(error), "message": error.message}}


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Turn what the operating system refuses into our error, without its traceback.

    Raises:
        NotFoundError: a file or folder that is not there.
        StorageError: no room is left.
        CommandError: what may not be read or written.
    """
    try:
        with storage_errors():
            yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {error.filename}") from error
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        raise CommandError("system", f"{place}{error.strerror or error}") from error


def discard_unwritten() -> None:
    """Let go of what standard output did not take: at its end Python would try again, and complain.

    Source:
        The note on SIGPIPE in the documentation of Python's ``signal``.
    """
    try:
        if sys.stdout is not None:  # it is where the caller closed it
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
