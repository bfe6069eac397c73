"""Any replica answers for the fleet: metrics and sessions of all, each with its replica's name."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.errors import StoreError
from server.fleet.board import Board, families_of, to_listing, to_text
from server.fleet.tickets import SharedTickets
from server.keys import ApiKey
from server.metrics import Metrics
from tests.e2e.fleet import redis_server
from tests.server.routes.asking import wait_until


def shown_by(
    metrics: Metrics,
    sessions: list[dict[str, Any]] | None = None,
    holders: dict[str, int] | None = None,
) -> dict[str, Any]:
    """What a replica shows."""
    return {
        "metrics": families_of(metrics), "sessions": sessions or [], "holders": holders or {}
    }  # fmt: skip


def shown(text: bytes, sample: str) -> dict[str, float]:
    """The values of a sample that are not 0, by replica."""
    return {
        each.labels["replica"]: each.value
        for family in text_string_to_metric_families(text.decode())
        for each in family.samples
        if each.name == sample and each.value
    }


def test_each_replica_shows_itself_and_all_the_others(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        boards = {name: Board(url, name) for name in ("a", "b")}
        wait_until(lambda: _answers(boards["a"]))
        for number, board in enumerate(boards.values(), 1):
            metrics = Metrics()
            metrics.sessions.labels("live").set(number)
            metrics.frames.labels("result").inc(10 * number)
            sessions = [{"session": f"s_{number}", "phase": "live"}]
            board.post(shown_by(metrics, sessions, {"cart": number}))
        posts = boards["b"].read()
        text = to_text(posts)
        assert shown(text, "gdkvm_sessions") == {"a": 1, "b": 2}
        assert shown(text, "gdkvm_frames_total") == {"a": 10, "b": 20}
        assert text.count(b"# TYPE gdkvm_sessions gauge") == 1
        assert to_listing(posts) == [
            {"session": "s_1", "phase": "live", "replica": "a"},
            {"session": "s_2", "phase": "live", "replica": "b"},
        ]
        boards["a"].count_others()
        assert boards["a"].held_by("cart") == 2, "those of this replica it knows itself"
        assert boards["a"].held_by("nobody") == 0
        boards["a"].leave()
        assert set(boards["b"].read()) == {"b"}
        boards["b"].leave()


async def test_a_replica_without_its_redis_goes_on_unseen() -> None:
    board = Board("redis://127.0.0.1:1/0", "a")
    board.post(shown_by(Metrics()))
    board.count_others()
    assert board.read() == {}
    assert board.held_by("cart") == 0
    board.leave()
    tickets = SharedTickets("redis://127.0.0.1:1/0")
    assert await tickets.redeem("made up") is None
    with pytest.raises(StoreError):
        await tickets.issue(None)


async def test_streams_go_on_while_a_redis_that_hangs_is_asked_for_a_ticket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.fleet.tickets.ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tickets = SharedTickets(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        for asked in (tickets.redeem("a ticket"), tickets.issue(None)):
            task = asyncio.ensure_future(asked)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not task.done(), "whoever streams had to wait"
            with suppress(StoreError):
                assert await task is None


async def test_a_ticket_of_one_replica_opens_another_once(tmp_path: Path) -> None:
    key = ApiKey("cart", "0" * 64)
    with redis_server(tmp_path) as url:
        wait_until(lambda: _answers(Board(url, "a")))
        here, there = SharedTickets(url), SharedTickets(url)
        ticket = await here.issue(key)
        found = await there.redeem(ticket)
        assert found is not None
        assert (found.name, found.digest) == (key.name, key.digest)
        assert await here.redeem(ticket) is None
        assert await here.redeem("made up") is None


def _answers(board: Board) -> bool:
    board.post(shown_by(Metrics()))
    return "a" in board.read()
