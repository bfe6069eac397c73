"""Frames decoded a little ahead of their reader, in order, on a few threads."""

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from server.ingest.errors import TooSlowError

AHEAD_PER_THREAD = 3

Decode = Callable[[int], NDArray[np.uint8]]


def decode_in_order(
    decode: Decode, count: int, *, threads: int, budget_s: float
) -> Generator[NDArray[np.uint8], None, None]:
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

    def timed(index: int) -> tuple[NDArray[np.uint8], float]:
        start_s = time.thread_time()
        return decode(index), time.thread_time() - start_s

    waiting: deque[Future[tuple[NDArray[np.uint8], float]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    spent_s = 0.0
    try:
        for index in range(count + threads * AHEAD_PER_THREAD):
            if index < count:
                waiting.append(pool.submit(timed, index))
            if index >= threads * AHEAD_PER_THREAD and waiting:
                luma, took_s = waiting.popleft().result()
                spent_s += took_s
                if spent_s > budget_s:
                    raise TooSlowError(
                        f"decoding takes more than {budget_s:g} s: send a shorter or simpler clip"
                    )
                yield luma
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
