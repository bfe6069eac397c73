"""Sessions that come and go while the roster waits for something, such as the store."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.pace import Pace
from tests.server.live import PATIENCE_S, Live, beating, live_server


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """Room for two sessions, which stay parked as long as any test here takes."""
    with live_server(tmp_path, max_sessions=2, resume_s=600, idle_timeout_s=5) as live:
        yield live


async def parked(live: Live, count: int) -> str:
    """Let a session answer some frames and lose its line; its token."""
    async with live.talk() as talk:
        for seq in range(count):
            await talk.say(beating(seq))
            await talk.hear()
        talk.abort()
    await live.until_parked(talk.ready["session"])
    return str(talk.ready["resume"])


async def test_who_is_refused_for_another_reason_has_no_room_made(live: Live) -> None:
    async with live.talk() as talk:
        await parked(live, 1)
        async with live.socket() as refused:
            await refused.say_hello(model="none")
            heard, _ = await refused.hear_all()
            assert [each["code"] for each in heard] == ["unknown_model"]
        phases = [each["phase"] for each in live.server.parts.roster.listing()]
        assert sorted(phases) == ["live", "parked"]
        await talk.end()


class Gate:
    """Holds up a coroutine of the server, in its own thread, until a test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._may_go = threading.Event()

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        async def waiting(*given: Any) -> Any:
            if not self._may_go.is_set():
                self.entered.set()
                await asyncio.to_thread(self._may_go.wait, PATIENCE_S)
            return await work(*given)

        return waiting

    async def until_entered(self) -> None:
        await asyncio.to_thread(self.entered.wait, PATIENCE_S)

    def open(self) -> None:
        self._may_go.set()


async def test_a_session_that_made_room_while_it_was_stored_may_be_here_again_by_then(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, gate = live.server.parts.roster._saver, Gate()
    async with live.talk() as talk:
        async with live.talk() as cut:
            monkeypatch.setattr(saver, "save", gate.before(saver.save))
            cut.abort()
        await gate.until_entered()
        monkeypatch.undo()
        async with live.talk() as another:
            await another.end()
        async with live.talk(resume=cut.ready["resume"]) as back:
            gate.open()
            await back.say(beating(0))
            await back.hear()
            await asyncio.sleep(0.1)
            assert len(live.server.parts.roster) == 2
            back.abort()
        await live.until_parked(back.ready["session"])
        await talk.end()


async def test_of_two_sockets_that_resume_a_session_the_newer_one_has_it(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await parked(live, 2)
    saver, gate = live.server.parts.roster._saver, Gate()
    monkeypatch.setattr(saver, "claim", gate.before(saver.claim))
    async with live.socket() as older, live.socket() as newer:
        await older.say_hello(resume=token)
        await gate.until_entered()
        await newer.say_hello(resume=token)
        await newer.settle()
        gate.open()
        assert (await newer.hear())["last_seq"] == 1
        heard, close = await older.hear_all()
        assert (heard[-1]["code"], close) == ("fenced", 4001)
        await newer.say(beating(2))
        assert (await newer.hear())["areas_px"]["atrium"] == 3
        await newer.end()


async def test_a_session_resumed_while_the_server_begins_to_go_away_is_told_so(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await parked(live, 2)
    roster, gate = live.server.parts.roster, Gate()
    monkeypatch.setattr(roster._saver, "claim", gate.before(roster._saver.claim))
    async with live.socket() as talk:
        await talk.say_hello(resume=token)
        await gate.until_entered()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(roster.drain(), live.loop))
        gate.open()
        heard, close = await talk.hear_all()
    assert [each["type"] for each in heard] == ["ready", "drain"]
    assert (heard[-1]["last_seq"], close) == (1, 1012)


async def test_who_has_read_a_summary_may_open_the_next_session_while_it_is_stored(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, gate = live.server.parts.roster._saver, Gate()
    live.server.parts.engine.pace = Pace(1, capacity_fps=100.0)
    async with live.talk(fps=40) as stays, live.talk(fps=40) as ends:
        monkeypatch.setattr(saver, "save", gate.before(saver.save))
        await ends.say({"type": "bye"})
        assert (await ends.hear())["type"] == "summary"
        await gate.until_entered()
        monkeypatch.undo()
        async with live.talk(fps=40) as follows:
            gate.open()
            await follows.end()
        await stays.end()
