"""Keys are hashed at rest, changed without a restart, and a damaged file locks nobody out or in."""

import hashlib
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from server.commands.keys import read_key
from server.errors import SettingsError
from server.keys import (
    ApiKey,
    KeyRing,
    digest_of,
    editing,
    load_keys,
    new_secret,
    parse_line,
    read_keys,
)

KEY = "a key with spaces and ümläuts"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def test_a_digest_is_the_published_sha256() -> None:
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of("abc") == expected


def test_a_key_revoked_while_a_starting_server_reads_the_file_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{DIGEST} name=revoked\n{OTHER} name=other\n")

    def read(path: Path) -> tuple[ApiKey, ...]:
        keys = read_keys(path)
        path.write_text(f"{OTHER} name=other\n")
        return keys

    with monkeypatch.context() as patch:
        patch.setattr("server.keys.read_keys", read)
        ring = load_keys(path)
    assert ring.find(KEY) is None
    assert ring.find("other") is not None


def test_who_could_read_a_file_of_keys_can_after_it_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given = tmp_path / "keys", []
    path.write_text(f"{DIGEST} name=cart\n")
    path.chmod(0o640)
    monkeypatch.setattr("os.fchown", lambda _, user, group: given.append((user, group)))
    with editing(path) as lines:
        lines.append(f"{OTHER} name=other")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert given == [(path.stat().st_uid, path.stat().st_gid)]
    assert len(read_keys(path)) == 2


def test_a_line_of_a_digest_alone_opens_everything_without_limits() -> None:
    key = parse_line(DIGEST.upper())
    assert (key.name, key.digest) == (DIGEST[:8], DIGEST)
    assert key.scopes == ("stream", "upload", "admin")
    assert (key.max_sessions, key.max_fps, key.max_upload_bytes) == (None, None, None)


def test_a_line_says_name_scopes_and_limits() -> None:
    line = f"{DIGEST} max_fps=59.94 name=cart-3 scopes=upload,stream max_sessions=2"
    key = parse_line(line + " max_upload_bytes=1048576")
    assert key == ApiKey("cart-3", DIGEST, ("stream", "upload"), 2, 59.94, 1048576)


@pytest.mark.parametrize(
    "key",
    [
        ApiKey("a", DIGEST),
        ApiKey("b.c_d-1", DIGEST, ("admin",), 1, 0.5, 1),
        ApiKey("c", DIGEST, ("stream",), max_fps=60.0),
    ],
)
def test_what_is_written_is_what_is_read(key: ApiKey) -> None:
    assert parse_line(key.to_line()) == key


def test_a_ring_opens_for_its_keys_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# bedside 1\n{DIGEST.upper()}\n\n{OTHER} name=two\n")
    ring = load_keys(path)
    assert ring.is_needed
    assert getattr(ring.find("other"), "name", None) == "two"
    assert ring.find(KEY) is not None
    assert not any(map(ring.find, ["", "othe", "other ", DIGEST]))


def test_without_a_file_no_key_is_needed_and_none_is_found() -> None:
    ring = load_keys(None)
    assert not ring.is_needed
    assert ring.find("") is None


def test_a_changed_file_counts_at_once_and_the_last_key_revoked_opens_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "keys"
    path.write_text(DIGEST)
    ring = load_keys(path)
    found = ring.find(KEY)
    assert found is not None
    path.write_text(f"{DIGEST} max_sessions=1\n{OTHER}\n")
    assert ring.current(found) == ApiKey(found.name, DIGEST, max_sessions=1)
    assert ring.find("other") is not None
    path.write_text("# nobody\n")
    assert ring.is_needed
    assert ring.find(KEY) is None
    assert ring.current(found) is None


@pytest.mark.parametrize("damage", ["not a digest", None])
def test_a_damaged_or_missing_file_leaves_the_keys_as_they_were(
    tmp_path: Path, damage: str | None
) -> None:
    path = tmp_path / "keys"
    path.write_text(DIGEST)
    ring = load_keys(path)
    path.unlink() if damage is None else path.write_text(damage)
    assert ring.find(KEY) is not None
    assert ring.find("other") is None
    path.write_text(OTHER)
    assert ring.find(KEY) is None
    assert ring.find("other") is not None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# nothing\n",
        b"secret\n",
        DIGEST[:-1].encode(),
        DIGEST.encode() + b" me",
        b"\xff\xfe",
        f"{DIGEST} scopes=".encode(),
        f"{DIGEST} scopes=root".encode(),
        f"{DIGEST} max_fps=0".encode(),
        f"{DIGEST} max_fps=nan".encode(),
        f"{DIGEST} max_sessions=secret".encode(),
        f"{DIGEST} max_upload_bytes=-1".encode(),
        f"{DIGEST} name=a name=b".encode(),
        f"{DIGEST} name=../a".encode(),
        f"{DIGEST} name=a\n{OTHER} name=a".encode(),
        f"{DIGEST} name=a\n{DIGEST} name=b".encode(),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_without_telling_what_it_holds(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="GDKVM_API_KEYS_FILE") as caught:
        load_keys(path)
    assert "secret" not in caught.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none cannot be read \(No such file"):
        load_keys(tmp_path / "none")


def test_keys_made_here_are_long_and_never_alike() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    # 32 bytes are 43 characters of base 64 (RFC 4648, section 5).
    assert all(secret.startswith("gdkvm_") and len(secret) == 6 + 43 for secret in made)


def test_a_file_with_the_mark_that_windows_editors_write_is_read_and_edited(
    tmp_path: Path,
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{DIGEST} name=one\n", encoding="utf-8-sig")
    assert [key.digest for key in read_keys(path)] == [DIGEST]
    with editing(path) as lines:
        lines.append(f"{OTHER} name=two")
    assert [key.digest for key in read_keys(path)] == [DIGEST, OTHER]
    path.write_text("# of the ward\n" + path.read_text(), encoding="utf-8-sig")
    assert [key.digest for key in read_keys(path)] == [DIGEST, OTHER]
    path.write_text("gdkvm_secret\n", encoding="utf-8-sig")
    assert read_key(path) == "gdkvm_secret"


def test_an_edited_file_is_replaced_whole_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "conf" / "keys"
    with editing(path) as lines:
        lines.append(f"{DIGEST} name=one")
    assert [key.name for key in read_keys(path)] == ["one"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with suppress(RuntimeError), editing(path) as lines:
        lines.clear()
        raise RuntimeError
    assert [key.name for key in read_keys(path)] == ["one"]
    assert KeyRing(path, read_keys(path)).find(KEY) is not None
