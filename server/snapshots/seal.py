"""Snapshots at rest: encrypted and authenticated where there is a key."""

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.errors import SettingsError, SnapshotError

KEY_BYTES = 32
_NONCE_BYTES = 12
_OPEN, _SEALED = b"\x00", b"\x01"


def name_of(token: str) -> str:
    """What a session is called in a store: whoever reads that cannot resume it."""
    return hashlib.sha256(b"gdkvm session " + token.encode()).hexdigest()


class Seal:
    """Closes and opens blobs with one key, or leaves them as they are where there is none."""

    def __init__(self, key: str | None) -> None:
        """Take the key.

        Args:
            key: 32 bytes in hexadecimal.

        Raises:
            SettingsError: it is not that.
        """
        self._cipher = None if key is None else AESGCM(_read_key(key))

    def close(self, name: str, blob: bytes) -> bytes:
        """Make a blob fit for a store; sealed, it opens under its own name alone.

        Source:
            AES-256-GCM with a random nonce of 96 bits: NIST SP 800-38D, section 8.2.2.
        """
        if self._cipher is None:
            return _OPEN + blob
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _SEALED + nonce + self._cipher.encrypt(nonce, blob, name.encode())

    def open(self, name: str, stored: bytes) -> bytes:
        """Read what ``close`` made.

        Raises:
            SnapshotError: no key, another key, or bytes that were changed.
        """
        kind, rest = stored[:1], stored[1:]
        if self._cipher is None:
            if kind != _OPEN:
                raise SnapshotError("the snapshot is sealed, and this server has no key")
            return rest
        if kind != _SEALED:
            raise SnapshotError("the snapshot is not sealed, and this server takes no such one")
        try:
            return self._cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise SnapshotError(
                "the snapshot was sealed with another key, or tampered with"
            ) from error


def _read_key(key: str) -> bytes:
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    if len(found) != KEY_BYTES:
        raise SettingsError(
            "GDKVM_SNAPSHOT_KEY needs 32 bytes in hexadecimal: openssl rand -hex 32"
        )
    return found
