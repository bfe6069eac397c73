"""A limit on how long each of many waits may take, all of them on one timer."""

import asyncio
from types import TracebackType
from typing import Self


class Patience:
    """Ends a wait that takes too long, as ``asyncio.timeout`` does; for one wait after another.

    That one sets a timer for every wait and takes it back, which is much of what a frame costs the
    event loop. This one's timer goes off once per limit, and looks how long the present wait is.
    """

    def __init__(self, limit_s: float) -> None:
        """Set no timer yet.

        Args:
            limit_s: how long each wait may take.
        """
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Of the wait under way, None while there is none.
        self._due_s: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancellations = 0
        self._is_over = False

    def __enter__(self) -> Self:
        """Begin to wait, in a task."""
        assert self._due_s is None, "one wait at a time"
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancellations = task, task.cancelling()
        self._due_s = self._loop.time() + self._limit_s
        if self._timer is None:
            self._timer = self._loop.call_at(self._due_s, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End a wait.

        Raises:
            TimeoutError: it took too long.
        """
        task, self._task, self._due_s = self._task, None, None
        if self._is_over:
            self._is_over = False
            assert task is not None
            # Whoever else cancelled the task meanwhile wants it cancelled.
            if task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _look(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        if self._loop.time() < self._due_s:
            self._timer = self._loop.call_at(self._due_s, self._look)
            return
        assert self._task is not None
        self._is_over = True
        self._task.cancel()
