"""The sole owner of the device: what fails ends one session, or all where the device is gone."""

import asyncio
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from model import FrameError
from model.predictor import self_test_frame
from server.engine import Engine
from server.errors import AdmissionError, EngineDeadError, EngineError, UnknownModelError
from server.log import JsonFormatter, session_name
from server.metrics import Metrics
from server.pace import Pace
from server.schedule import Lane
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


async def test_two_frames_of_one_session_are_never_under_way_at_once(
    backend: CountingBackend, metrics: Metrics
) -> None:
    engine = Engine({"counting": counting_predictor(backend)}, 4, metrics)
    both, go_on = threading.Barrier(2), threading.Event()
    order: list[str] = []

    def first() -> None:
        both.wait(PATIENCE_S)
        assert go_on.wait(PATIENCE_S)
        order.append("first")

    def neighbour() -> None:
        both.wait(PATIENCE_S)
        go_on.set()

    tasks = [
        asyncio.create_task(engine.run(first, owner="a")),
        asyncio.create_task(engine.run(lambda: order.append("second"), owner="a", due_s=0.0)),
        asyncio.create_task(engine.run(neighbour, owner="b")),
    ]
    await asyncio.gather(*tasks)
    assert order == ["first", "second"]
    engine.close()


async def test_the_oldest_deadline_goes_first_and_clips_after_live_frames(engine: Engine) -> None:
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    held = asyncio.create_task(engine.run(hold))
    await asyncio.to_thread(begun.wait)
    clip = asyncio.create_task(
        asyncio.to_thread(engine.wait, Lane.CLIP, lambda: order.append("clip"))
    )
    late = asyncio.create_task(engine.run(lambda: order.append("late"), due_s=2.0))
    soon = asyncio.create_task(engine.run(lambda: order.append("soon"), due_s=1.0))
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(held, clip, late, soon)
    assert order == ["soon", "late", "clip"]


def test_a_clip_has_its_steps_done_by_a_worker_with_the_same_answer(engine: Engine) -> None:
    frame, threads = self_test_frame(0), set()
    direct = engine.predictor(None)
    queued = engine.predictor(None, Lane.CLIP)
    step = direct.backend.step

    def noted(*arguments):  # type: ignore[no-untyped-def]
        threads.add(threading.current_thread().name)
        return step(*arguments)

    direct.backend.step = noted  # type: ignore[method-assign]
    mask, state = queued.step(frame, queued.start())
    assert threads == {"engine-0"}
    expected, after = direct.step(frame, direct.start())
    assert mask.probabilities_NHW.tobytes() == expected.probabilities_NHW.tobytes()
    assert state.to_bytes("00" * 32) == after.to_bytes("00" * 32)


async def test_what_still_waits_when_the_server_stops_is_told_so(engine: Engine) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    held = asyncio.create_task(engine.run(hold))
    await asyncio.to_thread(begun.wait)
    waiting = asyncio.create_task(engine.run(lambda: None))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    with pytest.raises(EngineDeadError, match="stopping"):
        await waiting
    go_on.set()
    await asyncio.gather(held, closing)


@pytest.mark.parametrize(
    ("fps", "held_fps", "is_taken"),
    [(30.0, 50.0, True), (30.0, 51.0, False), (90.0, 0.0, True), (None, 80.0, True)],
)
def test_a_rate_is_promised_while_the_measured_capacity_lasts(
    backend: CountingBackend, metrics: Metrics, fps: float | None, held_fps: float, is_taken: bool
) -> None:
    engine = Engine({"counting": counting_predictor(backend)}, 1, metrics, capacity_fps=100.0)
    if is_taken:
        engine.check_rate(fps, held_fps)
    else:
        with pytest.raises(AdmissionError, match="80 frames/s") as caught:
            engine.check_rate(fps, held_fps)
        assert caught.value.retry_after_s > 0
    engine.close()


async def test_a_session_that_cannot_be_held_is_refused_at_hello_and_told_when_to_come_back(
    tmp_path: Path,
) -> None:
    with live_server(tmp_path) as live:
        live.server.parts.engine.pace = Pace(1, capacity_fps=50.0)
        async with live.talk(fps=30.0) as held:
            async with live.socket() as refused:
                await refused.say_hello(fps=30.0)
                (heard,), close = await refused.hear_all()
            assert (heard["code"], heard["retryable"], close) == ("full", True, 1013)
            assert heard["retry_after_s"] == AdmissionError.retry_after_s
            async with live.talk() as unhurried:
                await unhurried.end()
            await held.say(beating(0))
            assert (await held.hear())["type"] == "result"
            await held.end()
        async with live.talk(fps=30.0) as later:
            await later.end()


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
        # Nobody need have asked /readyz: an alert hangs on this alone.
        assert "\ngdkvm_ready 0.0\n" in (await live.get("/metrics")).text
        ready = await live.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "engine_dead"})
        assert (await live.get("/livez")).status_code == 200
        await live.assert_all_is_freed()
