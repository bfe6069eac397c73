"""Sessions that another server takes up, what it may not take up, and what a broken store costs."""

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import CRASH, Live, Talk, beating, flat, live_server, until

KEY = "5a" * 32
SECRET = "gdkvm_of_a_cart"


class Servers:
    """Servers that share one store; each has a network of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._count = 0

    @property
    def store(self) -> Path:
        return self.folder / "sessions.sqlite"

    def start(self, **settings: Any) -> Live:
        self._count += 1
        own = {"snapshot_store": str(self.store), "checkpoint_frames": 1, **settings}
        folder = self.folder / str(self._count)
        return self._stack.enter_context(live_server(folder, **own))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path, stack)


async def parked(live: Live, count: int) -> str:
    """A session that answered some frames and lost its socket; its token."""
    async with live.talk() as talk:
        for seq in range(count):
            await talk.say(beating(seq))
            await talk.hear()
        talk.abort()
    token = str(talk.ready["resume"])
    # Its timer starts once its snapshot is stored.
    await until(lambda: token in live.server.parts.roster._timers)
    return token


async def test_of_two_servers_that_hold_a_session_the_one_asked_first_is_fenced(
    servers: Servers,
) -> None:
    first, second = servers.start(), servers.start()
    async with first.talk() as old:
        await old.say(beating(0))
        await old.hear()
        await old.say(beating(1))
        assert (await old.hear())["areas_px"]["atrium"] == 2
        async with second.talk(resume=old.ready["resume"]) as new:
            known = -1 if new.ready["last_seq"] is None else new.ready["last_seq"]
            for seq in range(known + 1, 3):
                await new.say(beating(seq))
                assert (await new.hear())["areas_px"]["atrium"] == seq + 1
            # The first server may answer, until it wants to store what it answered.
            await old.say(beating(2))
            heard, close = await old.hear_all()
            assert (heard[-1]["code"], close) == ("fenced", 4001)
            await first.until_sessions(0)
            await new.say(beating(3))
            assert (await new.hear())["areas_px"]["atrium"] == 4
            await new.end()


async def test_a_session_comes_back_to_a_server_that_had_it_before(servers: Servers) -> None:
    first, second = servers.start(), servers.start()
    token = await parked(first, 2)
    async with second.talk(resume=token) as talk:
        assert talk.ready["last_seq"] == 1
        await talk.say(beating(2))
        await talk.hear()
        talk.abort()
    await second.until_parked(talk.ready["session"])
    async with first.talk(resume=token) as back:
        assert back.ready["last_seq"] == 2, "what the second server did is not forgotten"
        await back.say(beating(3))
        assert (await back.hear())["areas_px"]["atrium"] == 4
        await back.end()


async def test_a_full_server_leaves_a_session_with_the_one_that_has_it(servers: Servers) -> None:
    # The first server stores nothing but the beginning: the frames are in its memory alone.
    first, full = servers.start(checkpoint_frames=0), servers.start(max_sessions=1)
    async with first.talk() as talk:
        for seq in range(3):
            await talk.say(beating(seq))
            await talk.hear()
        async with full.talk() as other:
            async with full.socket() as refused:
                await refused.say_hello(resume=talk.ready["resume"])
                (heard,), close = await refused.hear_all()
            assert (heard["code"], heard["retryable"], close) == ("full", True, 1013)
            assert heard["retry_after_s"] > 0
            await other.end()
        talk.abort()
    await first.until_parked(talk.ready["session"])
    async with first.talk(resume=talk.ready["resume"]) as back:
        assert back.ready["last_seq"] == 2
        await back.end()


@pytest.mark.parametrize(
    ("there", "hello", "why"),
    [
        ({"snapshot_key": "a5" * 32}, {}, "another key"),
        ({"snapshot_key": None}, {}, "has no key"),
        ({}, {"codec": "png"}, "other frames"),
    ],
)
async def test_a_session_that_another_server_refuses_stays_with_the_one_that_has_it(
    servers: Servers, there: dict[str, Any], hello: dict[str, Any], why: str
) -> None:
    settings = {"snapshot_key": KEY}
    first, other = servers.start(**settings), servers.start(**settings | there)
    async with first.talk() as talk:
        await talk.say(beating(0))
        await talk.hear()
        async with other.socket() as refused:
            await refused.say_hello(resume=talk.ready["resume"], **hello)
            heard, close = await refused.hear_all()
        assert (heard[-1]["code"], close) == ("cannot_resume", 4004)
        assert why in heard[-1]["message"]
        await other.until_sessions(0)
        await still_answered(first, talk)


async def still_answered(live: Live, talk: Talk) -> None:
    """A session of one frame goes on where it was, is parked there, and comes back there."""
    for seq in (1, 2, 3):
        await talk.say(beating(seq))
        assert (await talk.hear())["areas_px"]["atrium"] == seq + 1
    talk.abort()
    await live.until_parked(talk.ready["session"])
    (session,) = live.server.parts.roster._sessions.values()
    assert not session.has_moved


async def test_who_has_another_key_takes_no_session_from_its_server(servers: Servers) -> None:
    keys = servers.folder / "keys"
    digests = [hashlib.sha256(each.encode()).hexdigest() for each in (SECRET, SECRET + "2")]
    keys.write_text(f"{digests[0]} name=cart\n{digests[1]} name=other\n")
    first, second = (servers.start(api_keys_file=keys) for _ in range(2))
    async with (
        first.socket(Authorization=f"Bearer {SECRET}") as talk,
        second.socket(Authorization=f"Bearer {SECRET}2") as other,
    ):
        await talk.say_hello()
        talk.ready = await talk.hear()
        await talk.say(beating(0))
        await talk.hear()
        await other.say_hello(resume=talk.ready["resume"])
        heard, close = await other.hear_all()
        assert (heard[-1]["code"], close) == ("cannot_resume", 4004)
        await still_answered(first, talk)


async def test_of_sessions_that_come_at_once_as_many_are_taken_as_there_are_places(
    servers: Servers,
) -> None:
    first, second = servers.start(checkpoint_frames=0), servers.start(max_sessions=1)
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(first.talk()) for _ in range(3)]
        for talk in held:
            await talk.say(beating(0))
            await talk.hear()
        comers = [await stack.enter_async_context(second.socket()) for _ in held]
        for comer, talk in zip(comers, held, strict=True):
            await comer.say_hello(resume=talk.ready["resume"])
        answers = [await comer.hear() for comer in comers]
        assert sorted(each.get("code", "ready") for each in answers) == ["full", "full", "ready"]
        for answer, talk in zip(answers, held, strict=True):
            if answer["type"] == "error":
                talk.abort()
                await first.until_parked(talk.ready["session"])
                async with first.talk(resume=talk.ready["resume"]) as back:
                    assert back.ready["last_seq"] == 0
                    await back.end()


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_session_that_another_server_took_up_counts_no_longer_where_it_was(
    servers: Servers, is_cut: bool
) -> None:
    keys = servers.folder / "keys"
    keys.write_text(f"{hashlib.sha256(SECRET.encode()).hexdigest()} name=cart max_sessions=1\n")
    bearer = {"Authorization": f"Bearer {SECRET}"}
    first, second = (servers.start(api_keys_file=keys, checkpoint_frames=0) for _ in range(2))
    async with first.socket(**bearer) as old, second.socket(**bearer) as new:
        await old.say_hello()
        ready = await old.hear()
        await old.say(beating(0))
        await old.hear()
        if is_cut:
            old.abort()
            await first.until_parked(ready["session"])
        await new.say_hello(resume=ready["resume"])
        assert (await new.hear())["resumed"]
        async with first.socket(**bearer) as another:
            await another.say_hello()
            begun = await another.hear()
            assert begun["type"] == "ready", begun
            if not is_cut:
                heard, close = await old.hear_all()
                assert (heard[-1]["code"], close) == ("fenced", 4001)
            await first.until_sessions(1)
            await another.end()
        await new.end()


async def test_a_session_is_not_parked_where_another_server_took_it_up(servers: Servers) -> None:
    first, second = servers.start(), servers.start()
    async with first.talk() as old:
        await old.say(beating(0))
        await old.hear()
        (session,) = first.server.parts.roster._sessions.values()
        await until(lambda: session.is_saved)
        async with second.talk(resume=old.ready["resume"]) as new:
            old.abort()
            await first.until_sessions(0)
            await new.end()


async def test_the_session_of_a_dead_device_goes_on_elsewhere(servers: Servers) -> None:
    first, second = servers.start(), servers.start()
    async with first.talk() as talk:
        for seq in range(3):
            await talk.say(beating(seq))
            saved = (await talk.hear())["saved_seq"]
        first.backend.is_broken = True
        await talk.say(flat(3, CRASH))
        heard, _ = await talk.hear_all()
        assert (heard[-1]["code"], heard[-1]["retryable"]) == ("engine_dead", True)
    async with second.talk(resume=talk.ready["resume"]) as again:
        known = again.ready["last_seq"]
        assert known >= (-1 if saved is None else saved)
        for seq in range(known + 1, 5):
            await again.say(beating(seq))
            assert (await again.hear())["areas_px"]["atrium"] == seq + 1
        await again.end()


def change_a_byte(store: Path) -> None:
    with closing(sqlite3.connect(store)) as file, file:
        ((name, blob),) = file.execute("SELECT name, stored FROM snapshots").fetchall()
        changed = bytearray(blob)
        changed[len(changed) // 2] ^= 1
        file.execute("UPDATE snapshots SET stored = ? WHERE name = ?", (bytes(changed), name))


@pytest.mark.parametrize(
    ("here", "there", "is_changed", "why"),
    [
        (KEY, KEY, True, "tampered"),
        (KEY, "a5" * 32, False, "another key"),
        (KEY, None, False, "has no key"),
        (None, KEY, False, "not sealed"),
        (None, None, True, "checksum"),
    ],
)
async def test_a_snapshot_that_is_not_as_it_was_written_is_not_gone_on_with(
    servers: Servers, here: str | None, there: str | None, is_changed: bool, why: str
) -> None:
    token = await parked(servers.start(snapshot_key=here), 1)
    if is_changed:
        change_a_byte(servers.store)
    other = servers.start(snapshot_key=there)
    async with other.socket() as talk:
        await talk.say_hello(resume=token)
        heard, close = await talk.hear_all()
    assert (heard[-1]["code"], close) == ("cannot_resume", 4004)
    assert why in heard[-1]["message"]
    await other.until_sessions(0)


async def test_while_the_store_is_broken_sessions_go_on_and_only_unknown_ones_are_refused(
    servers: Servers,
) -> None:
    live = servers.start()
    keeper = live.server.parts.keeper
    assert keeper is not None
    await asyncio.wrap_future(keeper._thread.submit(keeper._store.close))
    token = await parked(live, 2)
    async with live.talk(resume=token) as talk:
        assert talk.ready["last_seq"] == 1
        await talk.say(beating(2))
        result = await talk.hear()
        assert (result["areas_px"]["atrium"], result["saved_seq"]) == (3, None)
        await talk.end()
    async with live.socket() as stranger:
        await stranger.say_hello(resume="nobody")
        heard, close = await stranger.hear_all()
    assert (heard[-1]["code"], heard[-1]["retryable"], close) == ("store_unavailable", True, 1013)


async def test_a_session_waits_for_no_upload(servers: Servers) -> None:
    live, done = servers.start(record_dir=servers.folder / "logs"), threading.Event()
    uploads = [asyncio.to_thread(done.wait) for _ in range(64)]  # more than there are threads
    writing = [asyncio.run_coroutine_threadsafe(each, live.loop) for each in uploads]
    try:
        async with live.talk() as talk:
            for seq in range(4):
                await talk.say(beating(seq))
                assert (await talk.hear())["areas_px"]["atrium"] == seq + 1
            talk.abort()
        async with live.talk(resume=talk.ready["resume"]) as back:
            assert back.ready["last_seq"] == 3
            await back.end()
    finally:
        done.set()
    await asyncio.gather(*map(asyncio.wrap_future, writing))


async def test_a_client_whose_line_died_without_a_word_is_noticed_by_a_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.commands.serving.PING_S", 0.2)
    with live_server(tmp_path, idle_timeout_s=600) as live:
        async with live.talk() as talk:
            await talk.say(beating(0))
            await talk.hear()
            # Nothing is read any more, so no ping is answered, and nothing is closed.
            talk.connection.transport.pause_reading()
            await live.until_sessions(0, parked=1)
            talk.abort()
        async with live.talk(resume=talk.ready["resume"]) as again:
            assert again.ready["last_seq"] == 0
            await again.end()
