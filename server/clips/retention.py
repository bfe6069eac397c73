"""Which clips have been kept long enough."""

from collections.abc import Iterable

from server.clips.job import Job
from server.settings import Settings

DAY_S = 86_400.0


def surplus(jobs: Iterable[Job], settings: Settings, now_s: float) -> list[Job]:
    """The clips to forget: too old, too many, too large together; of these the oldest go first.

    Results and refusals are counted apart, so that no refused file drives out a result; what still
    waits or is worked on stays, and so does the newest result.

    Args:
        jobs: all clips, oldest first.
        settings: how many, how large and how long.
        now_s: the time, in seconds since 1970.
    """
    over = [job for job in jobs if job.is_over and job.finished_s is not None]
    until_s = now_s - settings.clip_keep_days * DAY_S
    gone = [job for job in over if (job.finished_s or 0.0) < until_s]
    left = [job for job in over if job not in gone]
    for state in ("done", "failed"):
        alike = [job for job in left if job.state == state]
        gone += alike[: max(0, len(alike) - settings.max_clips)]
    results = [job for job in left if job.state == "done" and job not in gone]
    total_bytes = sum(job.size_bytes for job in results)
    for job in results[:-1]:
        if total_bytes <= settings.clip_store_bytes:
            break
        total_bytes -= job.size_bytes
        gone.append(job)
    return gone
