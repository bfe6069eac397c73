"""The sole owner of the device: what fails ends one session, or all where the device is gone."""

import asyncio
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from model import FrameError
from server.engine import Engine
from server.errors import EngineDeadError, EngineError, UnknownModelError
from server.log import JsonFormatter, session_name
from server.metrics import Metrics
from tests.server.live import (
    CRASH,
    PATIENCE_S,
    CountingBackend,
    beating,
    counting_predictor,
    flat,
    live_server,
)


@pytest.fixture
def backend() -> CountingBackend:
    return CountingBackend()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def engine(backend: CountingBackend, metrics: Metrics) -> Iterator[Engine]:
    engine = Engine({"counting": counting_predictor(backend)}, 1, metrics)
    yield engine
    engine.close()


def waiting(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("gdkvm_jobs_waiting", {"kind": "frame"})


def test_the_first_model_is_the_default_one(engine: Engine) -> None:
    assert engine.predictor(None) is engine.predictor("counting")
    with pytest.raises(UnknownModelError, match="counting"):
        engine.predictor("other")


async def test_work_is_done_off_the_event_loop_and_in_the_order_asked(engine: Engine) -> None:
    done: list[int] = []
    threads = set()

    def work(number: int) -> int:
        done.append(number)
        threads.add(threading.current_thread())
        return number

    answers = await asyncio.gather(*(engine.run(partial(work, n)) for n in range(20)))
    assert list(answers) == done == list(range(20))
    assert threading.current_thread() not in threads


async def test_errors_of_ours_pass_through(engine: Engine) -> None:
    def work() -> None:
        raise FrameError("too small")

    with pytest.raises(FrameError, match="too small"):
        await engine.run(work)
    assert engine.is_alive


def divide() -> float:
    return 1 / 0


async def test_a_foreign_error_is_our_fault_and_logged_with_its_session(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    session_name.set("s_test")
    with pytest.raises(EngineError) as caught:
        await engine.run(divide)
    assert caught.value.code == "engine_failed"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert engine.is_alive
    (line,) = map(json.loads, caplog.text.splitlines())
    assert (line["level"], line["event"], line["session"]) == ("ERROR", "a step failed", "s_test")
    assert "ZeroDivisionError" in line["exception"]


async def test_where_the_self_test_fails_too_the_engine_is_dead_for_everybody(
    engine: Engine, backend: CountingBackend
) -> None:
    assert engine.self_test()
    backend.is_broken = True
    with pytest.raises(EngineDeadError):
        await engine.run(divide)
    assert not engine.is_alive
    with pytest.raises(EngineDeadError):
        await engine.run(lambda: None)


def test_another_answer_to_the_self_test_than_recorded_is_dead(
    engine: Engine, backend: CountingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = backend.step

    def dim(*arguments):  # type: ignore[no-untyped-def]
        probabilities, presence, state = step(*arguments)
        return 0.5 * probabilities, presence, state

    monkeypatch.setattr(backend, "step", dim)
    assert not engine.self_test()


async def test_a_cancelled_caller_leaves_only_between_two_frames(engine: Engine) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        ended.set()

    task = asyncio.create_task(engine.run(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_waits_for_a_worker_is_counted(engine: Engine, metrics: Metrics) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    tasks = [asyncio.create_task(engine.run(work)) for _ in range(3)]
    await asyncio.to_thread(begun.wait)
    assert waiting(metrics) == 2
    go_on.set()
    await asyncio.gather(*tasks)
    assert waiting(metrics) == 0


async def test_a_dead_engine_ends_every_session_and_is_not_ready(tmp_path: Path) -> None:
    with live_server(tmp_path) as live:
        assert (await live.get("/readyz")).status_code == 200
        async with live.talk() as victim, live.talk() as neighbour:
            live.backend.is_broken = True
            await victim.say(flat(0, CRASH))
            heard, close = await victim.hear_all()
            assert (heard[-1]["code"], heard[-1]["retryable"], close) == ("engine_dead", True, 1011)
            await neighbour.say(beating(0))
            heard, close = await neighbour.hear_all()
            assert (heard[-1]["code"], close) == ("engine_dead", 1011)
        ready = await live.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "engine_dead"})
        assert (await live.get("/livez")).status_code == 200
        assert "\ngdkvm_ready 0.0\n" in (await live.get("/metrics")).text
        await live.assert_all_is_freed()
