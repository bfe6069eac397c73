"""What a fleet must have before it serves, what a replica says of itself, and how it leaves."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.errors import DrainingError, SettingsError, WireCodes
from server.fleet.autoscaler import FleetPolicy
from server.fleet.board import keep_posting
from server.fleet.leaving import drain_when_told
from server.fleet.pressure import CAPACITY, LATE_SHARE, SESSIONS, Pressure
from server.fleet.shape import fleet_settings
from server.metrics import Metrics
from server.settings import Settings
from tests.server.live import beating, live_server, until

SHARED = "redis://127.0.0.1:6379/0"


def test_replicas_take_the_processors_that_ray_gives_and_no_port_of_their_own() -> None:
    made = fleet_settings(Settings(snapshot_store=SHARED, dicom_port=11112), 3)
    assert (made.threads, made.dicom_port) == (3, None)
    assert fleet_settings(Settings(snapshot_store=SHARED, threads=2), 3).threads == 2


@pytest.mark.parametrize(
    ("told", "given", "share"),
    [
        ({}, None, None),
        ({}, "/mnt/given", "/mnt/given"),
        ({"clip_share": "s3://told"}, "/mnt/given", "s3://told"),
        ({"clips": False}, "/mnt/given", None),
    ],
)
def test_replicas_take_clips_where_they_can_keep_them_together(
    told: dict[str, Any], given: str | None, share: str | None
) -> None:
    made = fleet_settings(Settings(snapshot_store=SHARED, **told), None, given)
    assert made.clips == (share is not None)
    assert not made.clips or made.clip_share == share


@pytest.mark.parametrize("told", [{}, {"snapshot_store": SHARED, "resume_s": 0}])
def test_a_fleet_without_a_shared_store_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="redis://"):
        fleet_settings(Settings(**told))


def test_pressure_is_the_share_of_late_frames_since_the_last_question() -> None:
    roster: Any = SimpleNamespace(live=3, places=8)
    metrics = Metrics()
    pressure = Pressure(roster, metrics)
    for _ in range(90):
        metrics.observe_stage("total", 0.010)
    for _ in range(10):
        metrics.observe_stage("total", 0.040)
    assert pressure.read() == {SESSIONS: 3, LATE_SHARE: pytest.approx(0.1), CAPACITY: 8}
    assert pressure.read()[LATE_SHARE] == 0
    metrics.observe_stage("total", 0.040)
    assert pressure.read()[LATE_SHARE] == 0, "one frame says nothing"


def context(sessions: list[float], target: int, now_s: float, kept: dict[str, Any]) -> Any:
    names = [f"r{number}" for number in range(len(sessions))]
    return SimpleNamespace(
        current_time=now_s,
        policy_state=kept,
        target_num_replicas=target,
        aggregated_metrics={
            SESSIONS: dict(zip(names, sessions, strict=True)),
            LATE_SHARE: dict.fromkeys(names, 0.0),
            CAPACITY: dict.fromkeys(names, 8.0),
        },
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
    )


def test_the_autoscaler_is_answered_within_its_bounds_and_waits_before_it_shrinks() -> None:
    policy = FleetPolicy(calm_s=60)
    assert policy(context([8, 8, 8, 8], 4, 0, {}))[0] == 4, "five would be wanted, four may be"
    target, kept = policy(context([1, 1], 2, 100, {}))
    assert target == 2
    target, kept = policy(context([1, 1], 2, 150, kept))
    assert target == 2
    target, kept = policy(context([5, 5], 2, 155, kept))
    target, kept = policy(context([1, 1], 2, 170, kept))
    assert target == 2, "the calm was broken"
    assert policy(context([1, 1], 2, 216, kept))[0] == 1


async def test_a_fleet_that_shrinks_loses_no_session_and_no_frame(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"snapshot_store": str(tmp_path / "sessions.sqlite"), "resume_s": 60}
    with (
        live_server(tmp_path / "1", **shared) as leaves,
        live_server(tmp_path / "2", **shared) as stays,
    ):
        told = threading.Event()
        draining = asyncio.run_coroutine_threadsafe(
            drain_when_told(told.is_set, leaves.server.parts), leaves.loop
        )
        async with leaves.talk() as idle, leaves.talk() as busy, leaves.socket() as late:
            for talk in (idle, busy):
                await talk.say(beating(0))
                assert (await talk.hear())["areas_px"]["atrium"] == 1
            leaves.backend.gate.clear()
            leaves.backend.entered.clear()
            await busy.say(beating(1))
            await asyncio.to_thread(leaves.backend.entered.wait)
            assert not draining.done()
            told.set()
            heard, close = await idle.hear_all()
            assert [each["type"] for each in heard] == ["drain"]
            assert close == WireCodes.close_code(DrainingError("")) == 1012
            await late.say_hello()
            assert await late.hear_all() == ([], 1012), "nobody new is admitted"
            leaves.backend.gate.set()
            heard, _ = await busy.hear_all()
            assert [each["type"] for each in heard] == ["result", "drain"], "its frame is answered"
        await asyncio.to_thread(draining.result, 30)
        assert leaves.server.parts.roster.live == 0
        for talk, answered in ((idle, 1), (busy, 2)):
            async with stays.talk(resume=talk.ready["resume"]) as again:
                assert again.ready["last_seq"] == answered - 1
                await again.say(beating(answered))
                # The phantom network counts the frames that its memory has seen.
                assert (await again.hear())["areas_px"]["atrium"] == answered + 1
                await again.end()


async def test_a_replica_lets_go_of_a_session_that_another_one_took_up(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"snapshot_store": str(tmp_path / "sessions.sqlite"), "resume_s": 600}
    with (
        live_server(tmp_path / "1", **shared) as first,
        live_server(tmp_path / "2", **shared) as second,
    ):
        async with first.talk() as moves, first.talk() as stays:
            moves.abort()
            await first.until_sessions(1, parked=1)
            async with second.talk(resume=moves.ready["resume"]) as moved:
                posts: list[dict[str, Any]] = []
                board: Any = SimpleNamespace(post=posts.append, count_others=lambda: None)
                posting = keep_posting(board, first.server.parts)
                task = asyncio.run_coroutine_threadsafe(posting, first.loop)
                await until(lambda: len(posts) > 0)
                task.cancel()
                names = [[each["session"] for each in post["sessions"]] for post in posts[:1]]
                assert names == [[stays.ready["session"]]], "it is never shown twice"
                await moved.end()
            await stays.end()
