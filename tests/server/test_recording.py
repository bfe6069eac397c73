"""What is written of a session where an operator asks for it, what is not, and how much of it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.recording import Room, SessionLog
from server.replay import Log, Outcome, replay
from tests.server.live import (
    NAN,
    SIDE,
    CountingBackend,
    Live,
    beating,
    counting_predictor,
    disc,
    flat,
    live_server,
)

KEY = "Bearer gdkvm_not_a_key"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recorded"


@pytest.fixture
def live(tmp_path: Path, folder: Path) -> Iterator[Live]:
    with live_server(tmp_path, record_dir=folder, record_frames="payloads") as live:
        yield live


def recorded_below(folder: Path) -> list[Path]:
    return list(folder.rglob("*.gdkvmlog"))


def logs_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def bytes_in(folder: Path) -> int:
    return sum(len(path.read_bytes()) for path in logs_in(folder))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run_again(path: Path) -> Outcome:
    with path.open("rb") as file:
        return replay(Log(file), counting_predictor(CountingBackend()), lambda _: None)


async def streamed(live: Live, count: int, **hello: Any) -> str:
    async with live.talk(**hello) as talk:
        for seq in range(count):
            await talk.say(beating(seq))
            await talk.hear()
        await talk.end()
    await live.until_sessions(0)
    return str(talk.ready["resume"])


async def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path: Path) -> None:
    with live_server(tmp_path) as live:
        await streamed(live, 2)
    assert recorded_below(tmp_path) == []


async def test_a_recorded_session_comes_out_again(live: Live, folder: Path) -> None:
    await streamed(live, 20)
    (path,) = logs_in(folder)
    outcome = run_again(path)
    assert outcome.difference is None
    assert (outcome.results, outcome.dropped, outcome.has_end) == (20, 0, True)
    assert outcome.ef is not None


async def test_dropped_frames_are_dropped_again_at_their_places(live: Live, folder: Path) -> None:
    async with live.talk(policy="latest") as talk:
        live.backend.gate.clear()
        for seq in range(5):
            await talk.say(beating(seq))
        await talk.settle()
        live.backend.gate.set()
        kinds = [(await talk.hear())["type"] for _ in range(5)]
        await talk.end()
    await live.until_sessions(0)
    (path,) = logs_in(folder)
    outcome = run_again(path)
    assert outcome.difference is None
    assert outcome.dropped == kinds.count("dropped") > 0


async def test_a_session_that_is_cut_and_resumed_is_one_log_in_one_server(
    live: Live, folder: Path
) -> None:
    async with live.talk() as talk:
        await talk.say(beating(0))
        await talk.hear()
        talk.abort()
    await live.until_parked(talk.ready["session"])
    async with live.talk(resume=talk.ready["resume"]) as again:
        await again.say(beating(1))
        await again.hear()
        await again.end()
    await live.until_sessions(0)
    (path,) = logs_in(folder)
    assert (run_again(path).results, run_again(path).has_end) == (2, True)


async def test_another_server_records_on_from_where_the_session_stood(
    tmp_path: Path, folder: Path
) -> None:
    store: dict[str, Any] = {
        "snapshot_store": str(tmp_path / "sessions.sqlite"),
        "record_dir": folder,
    }
    with live_server(tmp_path / "a", **store, record_frames="payloads") as live:
        async with live.talk() as talk:
            for seq in range(3):
                await talk.say(beating(seq))
                await talk.hear()
            talk.abort()
        await live.until_parked(talk.ready["session"])
    with live_server(tmp_path / "b", **store, record_frames="payloads") as live:
        async with live.talk(resume=talk.ready["resume"]) as again:
            await again.say(beating(3))
            await again.hear()
            await again.end()
        await live.until_sessions(0)
    first, second = logs_in(folder)
    assert (run_again(first).results, run_again(first).has_end) == (3, False)
    outcome = run_again(second)
    assert outcome.difference is None
    assert (outcome.results, outcome.has_end) == (1, True)


async def test_the_frame_that_ends_a_session_ends_it_again(live: Live, folder: Path) -> None:
    async with live.talk() as talk:
        await talk.say(beating(0))
        await talk.say(flat(1, NAN))
        heard, _ = await talk.hear_all()
    assert heard[-1]["code"] == "bad_state"
    await live.until_sessions(0)
    (path,) = logs_in(folder)
    outcome = run_again(path)
    assert outcome.difference is None
    assert (outcome.results, outcome.has_end) == (1, True)


async def test_a_log_is_its_owners_alone_and_holds_no_header_no_token_and_no_key(
    live: Live, folder: Path
) -> None:
    async with live.socket(Authorization=KEY, **{"X-Patient": "Doe^Jane"}) as talk:
        await talk.say_hello()
        token = (await talk.hear())["resume"]
        await talk.say(beating(0))
        await talk.hear()
        await talk.end()
    await live.until_sessions(0)
    (path,) = logs_in(folder)
    written = path.read_bytes()
    for secret in (token, KEY, "Doe", "Patient", "Authorization", "resume"):
        assert secret.encode() not in written, secret
    assert mode_of(path) == 0o600
    assert mode_of(folder) == 0o700


async def test_of_frames_there_are_hashes_alone_unless_payloads_are_asked_for(
    tmp_path: Path, folder: Path
) -> None:
    with live_server(tmp_path, record_dir=folder) as live:
        await streamed(live, 3)
    (path,) = logs_in(folder)
    assert disc(0).tobytes() not in path.read_bytes()
    assert bytes_in(folder) < 3 * SIDE * SIDE


async def test_a_full_folder_lets_the_oldest_log_go_and_no_session_suffers(
    tmp_path: Path, folder: Path
) -> None:
    limit = 40 * SIDE * SIDE
    with live_server(
        tmp_path, record_dir=folder, record_frames="payloads", record_max_bytes=limit
    ) as live:
        for _ in range(4):
            await streamed(live, 12)
            assert bytes_in(folder) <= limit
        assert 1 <= len(logs_in(folder)) < 4
        await streamed(live, 60)
    assert bytes_in(folder) <= limit
    outcome = run_again(logs_in(folder)[-1])
    assert outcome.difference is None
    assert 12 < outcome.results < 60
    assert not outcome.has_end


def test_room_that_an_operator_made_is_room(tmp_path: Path) -> None:
    path = tmp_path / "s_1-0.gdkvmlog"
    path.write_bytes(bytes(900))
    room = Room(tmp_path, 1000)
    path.unlink()
    assert room.take(800)
    assert not room.take(1001)


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="GDKVM_RECORD_DIR"):
        Room(tmp_path / "file" / "below", 1000)


def test_a_disk_that_is_full_ends_the_log_and_not_the_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = SessionLog(Room(tmp_path, 1 << 20), "s_1", has_payloads=True)
    os.dup2(os.open("/dev/full", os.O_WRONLY), log._file.fileno())
    log.note_end(())
    log.note_end(())
    assert [record.getMessage() for record in caplog.records] == [
        "a session is recorded no further"
    ]
    log.close()
