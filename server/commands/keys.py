"""API keys on the command line: make one, list them, revoke one."""

from pathlib import Path

from rich.table import Table

from server.commands.terminal import CommandError, Terminal
from server.errors import SettingsError
from server.keys import (
    ApiKey,
    checked_name,
    digest_of,
    editing,
    new_secret,
    parse_line,
    parse_scopes,
    read_keys,
)

Limits = tuple[int | None, float | None, int | None]
"""Sessions, frames a second, bytes of an upload; None: no limit of its own."""


def add_key(path: Path, name: str, scopes: str, limits: Limits, terminal: Terminal) -> None:
    """Make a key and say it, once: the file holds its hash alone.

    Args:
        path: the file; made where there is none.
        name: whose key it is.
        scopes: what it opens, with commas in between.
        limits: how much it may use.
        terminal: where the key is said.

    Raises:
        EchoError: a name that is taken or impossible, or a file that cannot be understood.
    """
    secret = new_secret()
    try:
        opens = parse_scopes(scopes.split(","))
        key = ApiKey(checked_name(name), digest_of(secret), opens, *limits)
        parse_line(key.to_line())
    except ValueError as error:
        raise CommandError("bad_request", str(error)) from error
    if path.exists() and key.name in {each.name for each in read_keys(path)}:
        raise CommandError("bad_request", f"there is a key {key.name} already; revoke it first")
    with editing(path) as lines:
        lines.append(key.to_line())
    try:
        terminal.give({"name": key.name, "key": secret, "scopes": list(key.scopes)})
        terminal.say(secret)
    except (OSError, SystemExit):  # nobody was told the key
        with editing(path) as lines:
            lines.remove(key.to_line())
        raise
    # Not on standard output, which goes into a file as it is.
    terminal.note(f"That is the key of {key.name}. It is kept nowhere: note it now.")


def list_keys(path: Path, terminal: Terminal) -> None:
    """Say what the file says of each key.

    Raises:
        EchoError: the file cannot be read or understood.
    """
    keys = read_keys(path)
    table = Table("name", "scopes", "sessions", "frames/s", "upload bytes")
    for key in keys:
        limits = (key.max_sessions, key.max_fps, key.max_upload_bytes)
        shown = ["any" if limit is None else f"{limit:g}" for limit in limits]
        table.add_row(key.name, ", ".join(key.scopes), *shown)
    names = ("name", "scopes", "max_sessions", "max_fps", "max_upload_bytes")
    terminal.give([{name: getattr(key, name) for name in names} for key in keys])
    if not terminal.as_json:
        terminal.words.print(table)


def revoke_key(path: Path, name: str, terminal: Terminal) -> None:
    """Take a key out; servers that run close its sessions at their next frame.

    Raises:
        EchoError: there is no such key, or the file cannot be understood.
    """
    if name not in {key.name for key in read_keys(path)}:
        raise CommandError("not_found", f"there is no key {name}; gdkvm keys list names them all")
    with editing(path) as lines:
        lines[:] = [line for line in lines if not _is_of(line, name)]
    terminal.give({"revoked": name})
    terminal.say(f"{name} is revoked.")


def _is_of(line: str, name: str) -> bool:
    line = line.strip()
    return bool(line) and not line.startswith("#") and parse_line(line).name == name


def keys_file(given: Path | None, setting: Path | None) -> Path:
    """The file to work on.

    Raises:
        SettingsError: none is named.
    """
    chosen = given or setting
    if chosen is None:
        raise SettingsError("which file? set GDKVM_API_KEYS_FILE, or say --file")
    return chosen


def read_key(path: Path | None) -> str | None:
    """The key that a file holds, None where there is no file.

    Raises:
        CommandError: it holds something else.
    """
    if path is None:
        return None
    text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    if not text or not text.isprintable() or not text.isascii():
        raise CommandError("bad_request", f"{path} holds no key: a key is one line of ASCII")
    return text
