"""Replicas on real Ray and real Redis: one is killed, all are replaced, and no answer changes."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gdkvm_client import ConnectionLostError, Hello, Result, StreamClient
from server.ingest import read_sample, sample_path
from tests.e2e.chaos import AHEAD, Gate, frames_of, play
from tests.e2e.fleet import Replicas, fleet, redis_server
from tests.e2e.serving import PATIENCE_S

SESSIONS, FRAMES = 3, 64
KILL_AFTER, ROLL_AFTER = 12, 30


def shown_by(served: Replicas) -> int:
    """Sessions that whichever replica answers tells of, once it also tells of the other one."""
    metrics = httpx.get(f"{served.http}/metrics").text
    is_whole = len(set(re.findall(r'gdkvm_ready{replica="(.+?)"}', metrics))) == 2
    return len(httpx.get(f"{served.http}/v1/sessions").json()) if is_whole else -1


def measured_once(served: Replicas) -> tuple[str, dict[str, Any]]:
    """A clip that some replica took and some replica measured: its address and its result."""
    content = sample_path().read_bytes()
    answer = httpx.post(
        f"{served.http}/v1/clips", content=content, params={"wait_s": 60}, timeout=PATIENCE_S
    )
    assert answer.status_code == 200, answer.text
    return f"{served.http}{answer.headers['Location']}", answer.json()


def result_at(place: str) -> Any:
    return httpx.get(f"{place}/result", timeout=PATIENCE_S).json()


async def leave_in_order(served: Replicas) -> None:
    """End the fleet under a live session, which must be told so and not cut off."""
    clip = read_sample()
    hello = Hello(clip.size, "jpeg", policy="every")
    async with StreamClient(served.url, hello, will_resume=False) as client:
        await client.send(frames_of(clip, 1)[0])
        assert isinstance(await anext(client), Result)
        served.process.send_signal(signal.SIGTERM)
        # Close code 1012 is a restart that was announced; a cut has none.
        with pytest.raises(ConnectionLostError, match="1012"):
            await anext(client)


@pytest.mark.skipif(
    "TEST_FLEET" not in os.environ,
    reason="starts a cluster of ten processes, too slow on a busy machine: TEST_FLEET=1 runs it",
)
async def test_sessions_go_on_bit_for_bit_on_other_replicas(tmp_path: Path) -> None:
    clip = read_sample()
    with redis_server(tmp_path) as store, fleet(tmp_path, store, replicas=2) as served:
        gate = Gate()
        await gate.open(FRAMES)
        async with asyncio.timeout(3 * PATIENCE_S):
            undisturbed = await play(served.url, clip, FRAMES, gate)
            place, result = await asyncio.to_thread(measured_once, served)
            for _ in range(8):  # whichever replica is asked
                assert await asyncio.to_thread(result_at, place) == result
            gate = Gate()
            async with asyncio.TaskGroup() as group:
                players = [
                    group.create_task(play(served.url, clip, FRAMES, gate)) for _ in range(SESSIONS)
                ]
                await gate.open(KILL_AFTER + AHEAD)
                await gate.until_answered(KILL_AFTER)
                before = served.pids()
                await asyncio.to_thread(served.until, lambda: shown_by(served) == SESSIONS)
                killed = served.kill_one()
                await gate.open(ROLL_AFTER + AHEAD)
                await gate.until_answered(ROLL_AFTER)
                assert not any(player.done() for player in players)
                served.roll_out()
                await asyncio.to_thread(
                    served.until, lambda: len(served.pids()) == 2 and not served.pids() & before
                )
                await gate.open(FRAMES)
            assert await asyncio.to_thread(result_at, place) == result
        assert killed in before
        assert all(b"RAY_AUTH_MODE=token" in served.environment(each) for each in served.pids())
        await leave_in_order(served)
    assert len(undisturbed) > FRAMES, "every frame, a beat, and the summary"
    for player in players:
        assert player.result() == undisturbed
