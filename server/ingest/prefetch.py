"""Frames decoded a little ahead of their reader, in order, on a few threads."""

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from server.ingest.errors import TooSlowError

AHEAD_PER_THREAD = 3

Picture = TypeVar("Picture")


def decode_in_order(
    decode: Callable[[int], Picture], count: int, *, threads: int, budget_s: float
) -> Generator[Picture, None, None]:
    """Decode frames 0 to ``count`` - 1 on some threads; at most a few wait to be read.

    Args:
        decode: decodes the frame of an index; called from any of the threads.
        count: how many frames.
        threads: how many at once.
        budget_s: the longest time all decoding together may take.

    Raises:
        TooSlowError: the budget is used up.
        IngestError: what ``decode`` raises, when its frame's turn has come.
    """

    def timed(index: int) -> tuple[Picture, float]:
        start_s = time.thread_time()
        return decode(index), time.thread_time() - start_s

    waiting: deque[Future[tuple[Picture, float]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    spent_s = 0.0
    try:
        for index in range(count + threads * AHEAD_PER_THREAD):
            if index < count:
                waiting.append(pool.submit(timed, index))
            if index >= threads * AHEAD_PER_THREAD and waiting:
                picture, took_s = waiting.popleft().result()
                spent_s += took_s
                if spent_s > budget_s:
                    raise TooSlowError(
                        f"decoding takes more than {budget_s:g} s: send a shorter or simpler clip"
                    )
                yield picture
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
