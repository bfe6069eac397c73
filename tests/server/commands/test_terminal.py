import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model import EchoError
from server.commands.terminal import CommandError, Terminal, code_of, foreign_errors
from server.errors import NotFoundError, StorageError


def test_json_has_no_word_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=True).give({"a": [1.5, float("nan")], "b": {"c": (float("inf"), None, "x")}})
    assert json.loads(capsys.readouterr().out) == {"a": [1.5, None], "b": {"c": [None, None, "x"]}}


def test_people_get_words_and_programs_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        terminal = Terminal(as_json)
        terminal.say("words [1] [bold]")
        terminal.give({"a": 1})
        said = capsys.readouterr()
        assert said.out == ('{"a": 1}\n' if as_json else "words [1] [bold]\n")
        assert said.err == ""


def test_a_name_that_is_no_text_is_written_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"M\xfcller.dcm")
    for as_json in (False, True):
        terminal = Terminal(as_json)
        terminal.say(name)
        terminal.give([name])
        terminal.refuse(NotFoundError(f"there is no {name}"))
        said = capsys.readouterr()
        assert said.out == ('["M\\\\xfcller.dcm"]\n' if as_json else "M\\xfcller.dcm\n")
        assert said.err == "Not done: there is no M\\xfcller.dcm (not_found)\n"


def test_after_a_document_a_refusal_is_for_people_only(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(as_json=True)
    terminal.give([1])
    terminal.refuse(NotFoundError("there is no [/x]"))
    said = capsys.readouterr()
    assert said.out == "[1]\n"
    assert said.err == "Not done: there is no [/x] (not_found)\n"


SAYING = [("weights", "--json"), ("--help",), ("--version",)]


def gdkvm(words: tuple[str, ...], output: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "server", *words],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [*SAYING, ("segment", "no-such-file", "--json")])
def test_what_finds_no_room_is_a_refusal_in_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = gdkvm(words, full.fileno())
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("(storage_full)")


@pytest.mark.parametrize("words", SAYING)
def test_what_nobody_reads_any_more_ends_without_a_word(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = gdkvm(words, writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_bar_takes_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Terminal(as_json=True).progress("[/x] [bold]") as bar:
        bar.show(1, 2)
        bar.show(2, None)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOENT, NotFoundError, "not_found"),
        (errno.ENOSPC, StorageError, "storage_full"),
        (errno.EDQUOT, StorageError, "storage_full"),
        (errno.EACCES, CommandError, "system"),
        (errno.EISDIR, CommandError, "system"),
    ],
)
def test_what_the_system_refuses_becomes_our_error(
    number: int, kind: type[EchoError], code: str
) -> None:
    with pytest.raises(kind) as refusal, foreign_errors():
        raise OSError(number, os.strerror(number), "the file")
    assert code_of(refusal.value) == code
    assert "the file" in refusal.value.message or kind is StorageError
