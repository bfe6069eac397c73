import asyncio
from collections.abc import Awaitable, Callable

import pytest

from server.patience import Patience

LIMIT_S = 600.0
"""So long that no slow machine uses it up; tests turn the clock instead."""

Turn = Callable[[float], Awaitable[None]]


@pytest.fixture
async def turn(monkeypatch: pytest.MonkeyPatch) -> Turn:
    """Turns the event loop's clock on, and lets what is due then happen."""
    loop = asyncio.get_running_loop()
    real_s, ahead_s = loop.time, 0.0

    async def turned(more_s: float) -> None:
        nonlocal ahead_s
        ahead_s += more_s
        for _ in range(3):
            await asyncio.sleep(0)

    monkeypatch.setattr(loop, "time", lambda: real_s() + ahead_s)
    return turned


async def test_a_wait_that_takes_too_long_is_ended_and_so_is_the_next_one(turn: Turn) -> None:
    patience = Patience(LIMIT_S)
    for _ in range(3):
        with pytest.raises(TimeoutError), patience:
            await turn(LIMIT_S + 1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_wait_counts_on_its_own(turn: Turn) -> None:
    patience = Patience(LIMIT_S)
    for _ in range(5):
        with patience:
            await turn(0.9 * LIMIT_S)
    with pytest.raises(TimeoutError), patience:
        await turn(1.1 * LIMIT_S)


async def test_the_time_between_two_waits_does_not_count(turn: Turn) -> None:
    patience = Patience(LIMIT_S)
    for _ in range(2):
        with patience:
            await turn(0.9 * LIMIT_S)
        await turn(3 * LIMIT_S)


async def test_many_waits_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, []

    def counted(*arguments, **named):  # type: ignore[no-untyped-def]
        timers.append(arguments)
        return call_at(*arguments, **named)

    monkeypatch.setattr(loop, "call_at", counted)
    patience = Patience(LIMIT_S)
    for _ in range(100):
        with patience:
            pass
    assert len(timers) == 1


@pytest.mark.parametrize("error", [KeyError("of the wait's own"), asyncio.CancelledError()])
async def test_what_else_ends_a_wait_passes(error: BaseException) -> None:
    patience = Patience(LIMIT_S)
    with pytest.raises(type(error)), patience:
        raise error
    with patience:
        await asyncio.sleep(0)


async def test_a_task_cancelled_from_outside_stays_so_even_where_its_time_is_over(
    turn: Turn,
) -> None:
    patience, is_waiting = Patience(LIMIT_S), asyncio.Event()

    async def wait() -> None:
        with patience:
            is_waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await is_waiting.wait()
    # Due after the timer in the same turn of the loop, so that both cancel.
    asyncio.get_running_loop().call_later(LIMIT_S, task.cancel)
    await turn(LIMIT_S + 1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
