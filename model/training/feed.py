"""Prepares batches while the network trains on those before."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model.training.clips import Patient
from model.training.config import TrainConfig
from model.training.device import DeviceBatch, DeviceSynthesis
from model.training.parallel import Crew
from model.training.synthesis import Batch, ClipPlan, draw_batch, make_batch

PREFETCH = 3

Ahead = Callable[[int], Iterator[Batch | DeviceBatch]]
Made = TypeVar("Made")


@contextmanager
def batches(
    patients: list[Patient], negatives: list[NDArray[np.uint8]], config: TrainConfig, crew: Crew
) -> Iterator[Ahead]:
    """Prepare this process's share of the batches ahead of the network.

    Yields:
        A function from the step to go on from to its batch and all after it.
    """
    shared = patients, negatives, config, crew
    # Forked before the device is first used: children share the patients and never touch it.
    pool: Executor = (
        ThreadPoolExecutor(1, initializer=_Shared.fill, initargs=shared)
        if config.workers == 1
        else ProcessPoolExecutor(
            config.workers, get_context("fork"), initializer=_Shared.fill, initargs=shared
        )
    )
    with pool:
        if config.device == "cpu":
            yield lambda step: _ahead(pool, _Shared.batch, config, step)
            return
        if config.workers > 1:
            pool.submit(_Shared.plans, 0).result()
        synthesis = DeviceSynthesis(patients, torch.device(config.device))
        yield lambda step: map(synthesis.batch, _ahead(pool, _Shared.plans, config, step))


class _Shared:
    """What the processes that prepare batches were given at their start."""

    given: tuple[list[Patient], list[NDArray[np.uint8]], TrainConfig]
    crew: Crew

    @classmethod
    def fill(cls, *given: Any) -> None:
        *cls.given, cls.crew = given  # type: ignore[assignment]
        cv2.setNumThreads(1)

    @classmethod
    def batch(cls, step: int) -> Batch:
        return make_batch(*cls.given, step, cls.crew.share)

    @classmethod
    def plans(cls, step: int) -> list[ClipPlan]:
        return draw_batch(*cls.given, step)[cls.crew.share]


def _ahead(
    pool: Executor, make: Callable[[int], Made], config: TrainConfig, step: int
) -> Iterator[Made]:
    """What ``make`` gives for every step from ``step`` on, made a little before it is asked for."""
    ahead = deque[Future[Made]]()
    try:
        for k in range(step, config.steps):
            while len(ahead) < PREFETCH * config.workers and k + len(ahead) < config.steps:
                ahead.append(pool.submit(make, k + len(ahead)))
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()
