"""What lies in a store tells no token, and with a key nothing can be read or changed."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from server.errors import SettingsError, SnapshotError
from server.snapshots.blob import pack, unpack
from server.snapshots.seal import Seal, name_of

KEY, OTHER = "0f" * 32, "f0" * 32
MODEL = "ab" * 32
BLOB = pack(MODEL, [b"memory", b"", bytes(range(256))])


def test_a_sealed_blob_opens_with_its_key_and_shows_nothing_without() -> None:
    stored = Seal(KEY).close("name", BLOB)
    assert b"memory" not in stored
    assert Seal(KEY).open("name", stored) == BLOB
    # One byte for the kind, 12 of nonce, then AES-256-GCM with the name as associated data.
    plain = AESGCM(bytes.fromhex(KEY)).decrypt(stored[1:13], stored[13:], b"name")
    assert plain == BLOB


def test_no_two_snapshots_are_sealed_alike() -> None:
    assert Seal(KEY).close("name", BLOB) != Seal(KEY).close("name", BLOB)


@pytest.mark.parametrize("key", [None, KEY])
def test_every_changed_byte_is_noticed(key: str | None) -> None:
    seal = Seal(key)
    stored = seal.close("name", BLOB)
    for place in range(len(stored)):
        changed = bytearray(stored)
        changed[place] ^= 0x20
        with pytest.raises(SnapshotError):
            unpack(seal.open("name", bytes(changed)), MODEL)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 20, 60])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_snapshot_cut_short_is_noticed(key: str | None, length: int) -> None:
    with pytest.raises(SnapshotError):
        unpack(Seal(key).open("name", Seal(key).close("name", BLOB)[:length]), MODEL)


def test_another_key_or_another_session_opens_nothing() -> None:
    stored = Seal(KEY).close("name", BLOB)
    with pytest.raises(SnapshotError, match="another key, or tampered with"):
        Seal(OTHER).open("name", stored)
    with pytest.raises(SnapshotError, match="another key, or tampered with"):
        Seal(KEY).open("other", stored)
    with pytest.raises(SnapshotError, match="no key"):
        Seal(None).open("name", stored)


def test_a_server_with_a_key_takes_no_snapshot_that_anybody_could_have_written() -> None:
    with pytest.raises(SnapshotError, match="not sealed"):
        Seal(KEY).open("name", Seal(None).close("name", BLOB))


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, "00" * 33])
def test_a_key_that_is_none_stops_the_start(key: str) -> None:
    with pytest.raises(SettingsError, match="openssl rand -hex 32"):
        Seal(key)


def test_a_name_tells_nothing_of_its_token() -> None:
    assert name_of("secret") != name_of("Secret")
    assert "secret" not in name_of("secret")
    assert len(name_of("secret")) == 64


def test_the_parts_come_back_as_they_went_in() -> None:
    assert unpack(BLOB, MODEL) == (b"memory", b"", bytes(range(256)))


def test_a_snapshot_of_other_weights_or_of_another_version_says_so() -> None:
    with pytest.raises(SnapshotError, match="begun with weights abababababab"):
        unpack(BLOB, "00" * 32)
    later = bytearray(BLOB)
    later[4] = 9
    with pytest.raises(SnapshotError, match="format 9"):
        unpack(bytes(later), MODEL)
