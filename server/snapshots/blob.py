"""A session as one blob: versioned, checksummed, bound to the weights that made it."""

import hashlib
import struct
from collections.abc import Sequence

from server.errors import SnapshotError

VERSION = 1
_MAGIC = b"GDKN"
_HEADER = struct.Struct("<4sH32s32s")
_LENGTH = struct.Struct("<I")


def pack(model_sha256: str, parts: Sequence[bytes]) -> bytes:
    """Put parts into one blob.

    Args:
        model_sha256: of the weights, hexadecimal.
        parts: what the session is made of.

    Returns:
        Magic, version, hash of the weights, checksum of that hash and of all that follows; then
        each part's length and bytes.
    """
    body = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    model = bytes.fromhex(model_sha256)
    checksum = hashlib.sha256(model + body).digest()
    return _HEADER.pack(_MAGIC, VERSION, model, checksum) + body


def unpack(blob: bytes, model_sha256: str) -> tuple[bytes, ...]:
    """Take a blob apart.

    Args:
        blob: what ``pack`` wrote.
        model_sha256: of the weights that are to go on.

    Raises:
        SnapshotError: not such a blob, of another version or other weights, or damaged.
    """
    if len(blob) < _HEADER.size or blob[:4] != _MAGIC:
        raise SnapshotError("these bytes are no snapshot of a session")
    _, version, model, checksum = _HEADER.unpack_from(blob)
    if version != VERSION:
        raise SnapshotError(f"the snapshot has format {version}, this server reads {VERSION}")
    body = blob[_HEADER.size :]
    if hashlib.sha256(model + body).digest() != checksum:
        raise SnapshotError("the snapshot is damaged: its checksum does not match")
    if model.hex() != model_sha256:
        raise SnapshotError(
            f"the session was begun with weights {model.hex()[:12]}, here are {model_sha256[:12]}"
        )
    parts, place = [], 0
    while place < len(body):
        (length,) = _LENGTH.unpack_from(body, place)
        place += _LENGTH.size
        parts.append(body[place : place + length])
        place += length
    return tuple(parts)
