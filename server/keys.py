"""API keys: who holds one, what it opens, how much it may use; hashed at rest, read anew on change.

A file of keys has one key a line; empty lines and lines that begin with # are passed over:

    DIGEST name=cart-3 scopes=stream,upload max_sessions=2 max_fps=60 max_upload_bytes=104857600

DIGEST is the SHA-256 of the key in hexadecimal. All else may be missing: a key without scopes opens
everything, and one without limits has those of the server alone.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from server.errors import SettingsError

logger = logging.getLogger(__name__)

Scope = Literal["stream", "upload", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

KEY_SLOT = "gdkvm.key"
"""Where a request that was let in carries its ApiKey; None where none is needed."""

PREFIX = "gdkvm_"
"""Begins every key made here, so that a scanner for secrets recognises one that got out."""

SECRET_BYTES = 32
"""A key this long cannot be guessed from a fast hash; a password could."""

_DIGEST = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a file says of one key; the key itself is nowhere.

    Attributes:
        digest: SHA-256 of the key, in hexadecimal.
        scopes: what it opens.
        max_sessions: sessions held at once, live and parked; None: as many as the server takes.
        max_fps: frames a second of all its sessions together; None: any.
        max_upload_bytes: longest upload; None: as the server allows.
    """

    name: str
    digest: str
    scopes: tuple[Scope, ...] = SCOPES
    max_sessions: int | None = None
    max_fps: float | None = None
    max_upload_bytes: int | None = None

    def to_line(self) -> str:
        """As one line of the file."""
        words = [self.digest, f"name={self.name}", f"scopes={','.join(self.scopes)}"]
        limits = (("max_sessions", self.max_sessions), ("max_upload_bytes", self.max_upload_bytes))
        words += [f"{name}={value}" for name, value in limits if value is not None]
        if self.max_fps is not None:
            words.append(f"max_fps={self.max_fps:g}")
        return " ".join(words)


def digest_of(secret: str) -> str:
    """SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    """Make a key."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def parse_line(line: str) -> ApiKey:
    """Read one key.

    Raises:
        ValueError: the line is not of the documented form.
    """
    digest, *words = line.split()
    digest = digest.lower()
    if not _DIGEST.fullmatch(digest):
        raise ValueError("a line begins with a SHA-256 in hexadecimal: printf KEY | sha256sum")
    given = dict(_parse_word(word) for word in words)
    if len(given) < len(words):
        raise ValueError("a property is named twice")
    name = checked_name(given.pop("name", digest[:8]))
    scopes = parse_scopes(given.pop("scopes", ",".join(SCOPES)).split(","))
    return ApiKey(
        name,
        digest,
        scopes,
        _positive(given.get("max_sessions")),
        _positive_rate(given.get("max_fps")),
        _positive(given.get("max_upload_bytes")),
    )


def checked_name(name: str) -> str:
    """Pass a name on.

    Raises:
        ValueError: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name has up to 64 letters, digits, dots, dashes and underscores")
    return name


def _parse_word(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    if name not in ("name", "scopes", "max_sessions", "max_fps", "max_upload_bytes"):
        raise ValueError("a property is name, scopes, max_sessions, max_fps or max_upload_bytes")
    return name, value


def parse_scopes(names: Iterable[str]) -> tuple[Scope, ...]:
    """Read scopes.

    Raises:
        ValueError: none, or one that there is not.
    """
    given = set(names)
    if not given or not given <= set(SCOPES):
        raise ValueError(f"scopes are some of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in given)


def _positive(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[1-9][0-9]{0,15}", text):
        raise ValueError("max_sessions and max_upload_bytes are whole numbers from 1 on")
    return int(text)


def _positive_rate(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or float(text) == 0:
        raise ValueError("max_fps is a number above 0")
    return float(text)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys; it may hold none.

    Raises:
        SettingsError: it cannot be read, or a line is not of the documented form.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"GDKVM_API_KEYS_FILE: {path} cannot be read ({why})") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#"):
            try:
                keys.append(parse_line(line))
            except ValueError as error:
                raise SettingsError(f"GDKVM_API_KEYS_FILE, line {number}: {error}") from error
    if len({key.name for key in keys}) < len(keys) or len({k.digest for k in keys}) < len(keys):
        raise SettingsError("GDKVM_API_KEYS_FILE names two keys alike, or one key twice")
    return tuple(keys)


class KeyRing:
    """The keys of one file as it is now; without a file the server is open to its own machine."""

    def __init__(
        self, path: Path | None, keys: tuple[ApiKey, ...] = (), stamp: "Stamp | None" = None
    ) -> None:
        """Begin.

        Args:
            path: of the file, None where there is none.
            keys: what it held.
            stamp: of the file before they were read, so that no change since is missed.
        """
        self._path = path
        self._keys = keys
        self._stamp = stamp

    @property
    def is_needed(self) -> bool:
        """Whether a request needs a key."""
        return self._path is not None

    def find(self, secret: str) -> ApiKey | None:
        """The key of a secret, in a time that does not depend on it; None if it opens nothing."""
        self._refresh()
        digest = digest_of(secret)
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        return matches[0] if matches else None

    def current(self, key: ApiKey) -> ApiKey | None:
        """What the file says now of a key found before; None where it was revoked."""
        self._refresh()
        return next((each for each in self._keys if each.digest == key.digest), None)

    def _refresh(self) -> None:
        """Read the file again where it changed; a damaged one leaves the keys as they are."""
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except SettingsError as error:
            logger.error("keys not read, the old ones stay", extra={"why": error.message})
        else:
            logger.info("keys read", extra={"keys": len(self._keys)})


Stamp = tuple[int, int, int]


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file does."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def load_keys(path: Path | None) -> KeyRing:
    """Make the ring of a server that starts.

    Raises:
        SettingsError: the file cannot be read, holds no key, or a line is of another form.
    """
    if path is None:
        return KeyRing(None)
    stamp, keys = _stamp(path), read_keys(path)
    if not keys:
        raise SettingsError("GDKVM_API_KEYS_FILE holds no key: gdkvm keys add NAME makes one")
    return KeyRing(path, keys, stamp)


@contextmanager
def editing(path: Path) -> Iterator[list[str]]:
    """Change a file's lines; it is replaced whole at the end, and not at all after an error.

    Yields:
        The lines, to be changed in place; none where there is no file yet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
        yield lines
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            if path.exists():
                _keep_readers(descriptor, path)
            os.fsync(descriptor)
        Path(name).replace(path)


def _keep_readers(descriptor: int, path: Path) -> None:
    """Let the server, which may be another user, read what takes a file's place."""
    facts = path.stat()
    os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))
    # Not ours to give away where nobody but the owner edits it.
    with suppress(PermissionError):
        os.fchown(descriptor, facts.st_uid, facts.st_gid)
