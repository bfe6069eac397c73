"""Servers that stop, or are killed, under load: no session is lost, and no answer changes."""

import asyncio
import random
from contextlib import ExitStack
from pathlib import Path

from server.ingest import read_sample
from tests.e2e.chaos import BLOWS, Blow, Fleet, script, survive
from tests.e2e.serving import PATIENCE_S

FRAMES = 80
TWICE: list[Blow] = ["cut"]


async def test_sessions_survive_cuts_slow_lines_sigterm_and_kill_hash_by_hash(
    tmp_path: Path,
) -> None:
    blows = script(random.Random(20), [*BLOWS, *TWICE], FRAMES)
    with ExitStack() as stack:
        fleet = Fleet(tmp_path, stack)
        async with asyncio.timeout(2 * PATIENCE_S):
            undisturbed, disturbed = await survive(
                read_sample(), fleet, blows, sessions=2, count=FRAMES
            )
    assert len(undisturbed) > FRAMES, "every frame, a beat, and the summary"
    for found in disturbed:
        assert found == undisturbed
