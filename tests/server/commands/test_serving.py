"""What a serving process does so that nobody is held up."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import server.app
from server.commands.serving import DrainingServer, warm_up
from server.settings import Settings
from tests.server.live import CountingBackend, counting_predictor

PROGRAM = """
import gc, sys, cv2
from server.commands.serving import SWITCH_S, hold_up_nobody
hold_up_nobody()
assert gc.get_freeze_count() > 10_000
assert not gc.collect()
assert sys.getswitchinterval() == SWITCH_S
assert cv2.getNumThreads() == 1
"""


def test_the_collector_passes_by_what_was_loaded_and_pictures_stay_on_their_thread() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_the_routes_are_set_up_before_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = counting_predictor(CountingBackend())
    monkeypatch.setattr(server.app, "load_predictor", lambda *_, **__: predictor)
    made = DrainingServer(
        Settings(port=0, clip_dir=tmp_path, snapshot_store=str(tmp_path / "s.sqlite"), threads=1)
    )
    answers: list[int] = []
    stack = made.app.build_middleware_stack()

    async def noted(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        async def seen(message) -> None:  # type: ignore[no-untyped-def]
            answers.extend([message["status"]] if "status" in message else [])
            await send(message)

        await stack(scope, receive, seen)

    asyncio.run(warm_up(noted))
    assert answers == [200]
