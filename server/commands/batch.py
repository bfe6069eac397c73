"""An archive of clips into Parquet: goes on where it stopped, and refuses nothing but itself."""

import os
import time
from dataclasses import dataclass

from model import counted, load_info
from server.batch.flow import run, start_ray, stop_ray
from server.batch.inputs import list_inputs
from server.batch.parts import Parts
from server.batch.places import open_place
from server.batch.work import Task
from server.commands.terminal import Terminal

PART_CLIPS = 64
PART_S = 10.0
"""A part is written once it has so many clips, or the first of them has waited so long."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What was asked for.

    Attributes:
        told: folder, manifest or DICOMweb address.
        out: folder of results, or an address of one.
        workers: processes at once; None takes one a processor, or one a GPU.
        again: what was refused before is worked on anew.
        cluster: address of a Ray cluster, None for this machine.
    """

    told: str
    out: str
    task: Task
    workers: int | None = None
    again: bool = False
    cluster: str | None = None
    gpus: float = 0


def run_batch(request: BatchRequest, terminal: Terminal) -> None:
    """Work on all that is not done yet, and say how many rows there are.

    Raises:
        EchoError: nothing to work on, no weights, results of others, or they cannot be written.
    """
    model = load_info(request.task.model)
    parts = Parts(open_place(request.out), again=request.again)
    try:
        wanted = list_inputs(request.told, request.out, request.task.key)
        todo = [each for each in wanted if each.name not in parts.done]
        terminal.say(
            f"{counted(len(wanted), 'clip')}, {len(wanted) - len(todo)} of them done before"
        )
        if todo:
            parts.check_model(model)
            cores = os.cpu_count() or 1
            workers = min(request.workers or cores, len(todo))
            # What another machine of a cluster has besides is Ray's to give.
            threads = 1 if request.cluster else max(1, cores // workers)
            start_ray(request.cluster, workers)
            try:
                outcomes = run(todo, request.task, workers, threads, request.gpus)
                with terminal.progress("clips") as bar:
                    begun_s = time.monotonic()
                    for count, outcome in enumerate(outcomes, 1):
                        parts.add(outcome)
                        bar.show(count, len(todo))
                        is_due = time.monotonic() - begun_s > PART_S
                        if is_due or parts.waiting >= PART_CLIPS:
                            parts.flush()
                            begun_s = time.monotonic()
            finally:
                parts.flush()
                stop_ray()
    finally:
        parts.close()
    refusals = dict(parts.refused.most_common())
    refused = sum(refusals.values())
    terminal.say(f"{counted(len(parts.done), 'row')} in {request.out}, {refused} of them refusals")
    for code, count in refusals.items():
        terminal.say(f"  {code}: {count}")
    terminal.give(
        {
            "inputs": len(wanted),
            "worked_on": len(todo),
            "rows": len(parts.done),
            "refused": refused,
            "refusals": refusals,
            "out": request.out,
        }
    )
