"""The archive on Ray Data: clips stream through workers, on this machine or on a cluster's."""

import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from server.batch.errors import WorkerLostError
from server.batch.inputs import Input
from server.batch.rows import Outcome, refused
from server.batch.work import Analyst, Task, bring
from server.local_ray import start_local_ray

FETCHES = 4
"""Clips fetched at once."""

FETCH_CPUS = 0.25
"""Share of a processor that waiting for a server takes."""

STORE_BYTES = 1 << 30
"""Memory for clips on their way between fetching and work; what is beyond waits at its server."""

LOST_TRIES = 1
"""How often a clip is tried again after the worker that had it ended."""


def start_ray(cluster: str | None, workers: int) -> None:
    """Join a cluster, or start Ray on this machine for as long as this process lives.

    Args:
        cluster: its address, None for this machine alone.
        workers: processes that are wanted here.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if cluster is None:
        start_local_ray(workers + 1, STORE_BYTES)
    else:
        ray.init(cluster, logging_level=logging.ERROR, log_to_driver=False)


def stop_ray() -> None:
    """Let go of Ray."""
    ray.shutdown()


def run(
    inputs: Sequence[Input], task: Task, workers: int, threads: int, gpus: float = 0
) -> Iterator[Outcome]:
    """Work on clips; exactly one outcome each, as they are done.

    Args:
        inputs: which.
        task: how.
        workers: at once, each with a copy of the network.
        threads: processor threads of each.
        gpus: of each.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # A worker that ends with its clip must not end the run: what has no outcome is named below.
    context.max_errored_blocks = -1
    missing = {each.name for each in inputs}
    # One clip a block: its row is there as soon as it is done, and nothing else is lost with it.
    clips: Dataset = ray.data.from_items(
        [{"wanted": pickle.dumps(each)} for each in inputs], override_num_blocks=len(inputs)
    )
    if any(each.is_remote for each in inputs):
        clips = clips.map(_Fetch(task), compute=TaskPoolStrategy(size=FETCHES), num_cpus=FETCH_CPUS)
    # Ray takes a class whose objects it makes and calls, which its types do not tell.
    worker: Any = _Worker
    # Ray 2.64 will have another way to say it; until then pyproject.toml asks for one before.
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
    clips = clips.map(
        worker,
        fn_constructor_args=(task, threads),
        # None waits behind another, so that a worker that ends takes no clip but its own along.
        compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
        max_task_retries=LOST_TRIES,
    )
    for row in clips.iter_rows():
        outcome: Outcome = pickle.loads(row["outcome"])
        missing.discard(outcome.clip["input"])
        yield outcome
    for name in sorted(missing):
        lost = WorkerLostError("the worker ended or failed on this clip; Ray's log says how")
        yield refused(name, lost)


class _Fetch:
    """The stage that waits for other servers, so that the network need not."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        wanted: Input = pickle.loads(row["wanted"])
        if not wanted.is_remote:
            return row
        brought = bring(wanted, self._task)
        if isinstance(brought, Outcome):
            return {**row, "outcome": pickle.dumps(brought)}
        return {**row, "content": brought}


class _Worker:
    """An Analyst as an actor."""

    def __init__(self, task: Task, threads: int) -> None:
        self._analyst = Analyst(task, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row.get("outcome") is not None:
            return {"outcome": row["outcome"]}
        outcome = self._analyst.work(pickle.loads(row["wanted"]), row.get("content"))
        return {"outcome": pickle.dumps(outcome)}
