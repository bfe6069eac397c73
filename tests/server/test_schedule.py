"""Whose turn it is, seen from the workers."""

import threading
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.schedule import Job, Lane, Schedule
from tests.server.live import PATIENCE_S


def put(
    schedule: Schedule, lane: Lane = Lane.LIVE, due_s: float = 0.0, owner: Hashable = None
) -> list[str]:
    """Let a job wait; the list tells what became of it."""
    fate: list[str] = []
    schedule.put(
        lambda: fate.append("done"),
        lambda: fate.append("given up"),
        lane=lane,
        due_s=due_s,
        owner=object() if owner is None else owner,
    )
    return fate


def taken(schedule: Schedule) -> Job:
    job = schedule.take()
    assert job is not None
    return job


@given(st.lists(st.tuples(st.sampled_from(Lane), st.sampled_from([1.0, 2.0, 3.0])), max_size=12))
def test_live_goes_before_clips_before_bulk_then_the_oldest_deadline(
    jobs: list[tuple[Lane, float]],
) -> None:
    schedule = Schedule(workers=1)
    for lane, due_s in jobs:
        put(schedule, lane, due_s)
    order = []
    for _ in jobs:
        job = taken(schedule)
        order.append((job.lane, job.due_s, job.number))
        schedule.done(job)
    expected = sorted((lane, due_s, number) for number, (lane, due_s) in enumerate(jobs))
    assert order == expected


def test_no_two_jobs_of_one_owner_are_out_at_once() -> None:
    schedule = Schedule(workers=4)
    put(schedule, owner="a", due_s=1.0)
    put(schedule, owner="a", due_s=0.0)
    put(schedule, owner="b", due_s=9.0)
    first, second = taken(schedule), taken(schedule)
    assert (first.owner, first.due_s, second.owner) == ("a", 1.0, "b")
    schedule.done(first)
    assert taken(schedule).owner == "a"


def test_one_worker_stays_free_of_clips_so_that_a_live_frame_finds_it() -> None:
    schedule = Schedule(workers=2)
    put(schedule, Lane.CLIP)
    put(schedule, Lane.BULK)
    clip = taken(schedule)
    found: list[Job] = []
    worker = threading.Thread(target=lambda: found.append(taken(schedule)))
    worker.start()
    put(schedule, Lane.LIVE)
    worker.join(PATIENCE_S)
    assert [job.lane for job in found] == [Lane.LIVE]
    schedule.done(clip)
    assert taken(schedule).lane is Lane.BULK


def test_a_job_waits_until_it_is_taken_also_behind_another_of_its_owner() -> None:
    schedule = Schedule(workers=1)
    for lane, owner in ((Lane.LIVE, "a"), (Lane.LIVE, "a"), (Lane.CLIP, "b")):
        put(schedule, lane, owner=owner)
    told = [(schedule.waiting(Lane.LIVE), schedule.waiting(Lane.CLIP))]
    for _ in range(3):
        schedule.done(taken(schedule))
        told.append((schedule.waiting(Lane.LIVE), schedule.waiting(Lane.CLIP)))
    assert told == [(2, 1), (1, 1), (0, 1), (0, 0)]


def test_closing_gives_up_what_waits_and_lets_workers_go() -> None:
    schedule = Schedule(workers=1)
    fates = [put(schedule, owner="a"), put(schedule, owner="a"), put(schedule, owner="b")]
    running = taken(schedule)
    schedule.close()
    running.work()
    schedule.done(running)
    assert fates == [["done"], ["given up"], ["given up"]]
    assert schedule.take() is None
    assert put(schedule) == ["given up"]


@pytest.mark.parametrize("workers", [1, 3])
def test_many_workers_do_every_job_once(workers: int) -> None:
    schedule = Schedule(workers)
    running: set[Hashable] = set()
    fates = []

    def work() -> None:
        while (job := schedule.take()) is not None:
            assert job.owner not in running
            running.add(job.owner)
            job.work()
            running.remove(job.owner)
            schedule.done(job)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for number in range(300):
        fates.append(put(schedule, Lane(number % 3), due_s=number % 7, owner=number % 5))
    last = threading.Event()
    for owner in range(5):
        schedule.put(
            last.set if owner == 4 else lambda: None, lambda: None,
            lane=Lane.BULK, due_s=99.0 + owner, owner=owner,
        )  # fmt: skip
    assert last.wait(PATIENCE_S)
    schedule.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert all(fate == ["done"] or fate == ["given up"] for fate in fates)
    assert sum(fate == ["done"] for fate in fates) >= 290
